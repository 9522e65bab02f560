"""compact(fn)(small variables) == fn(dense variables with dead producers zeroed)."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr, primitives
from resized import (
    GRADIENT,
    assert_close,
    draw_alive,
    normal,
    odd_jvp,
    primitives_of,
    shrink_function,
)

import morph
import regularizers as reg
from morph.architecture.architecture import Architecture


class Shrunk:
    """A network, random kept channels, and both sides of the invariant."""

    def __init__(self, network, rng):
        self.network = network
        self.graph = network.graph
        alive = draw_alive(self.graph, rng)
        self.arch = morph.shrink(self.graph, alive)
        self.masked = self.graph.mask(network.variables, alive)
        self.small = self.arch.take(self.masked)
        self.small_fn = morph.compact(network.fn, self.arch)


@functools.cache
def shrunk_once(network):
    return Shrunk(network, np.random.default_rng(0))


@pytest.fixture
def shrunk(network):
    return shrunk_once(network)


# Values and gradients


def test_values_and_gradients_equal_the_masked_ones(shrunk):
    """Under jit. Gradients of kept entries; consumers of dead channels get none, or are gone."""
    inputs = shrunk.network.inputs

    def loss(fn):
        def with_output(variables):
            out = fn(variables, *inputs)
            return (out * jnp.cos(jnp.arange(out.size).reshape(out.shape))).sum(), out

        return jax.jit(jax.value_and_grad(with_output, has_aux=True))

    (_, expected), dense_gradients = loss(shrunk.network.fn)(shrunk.masked)
    (_, found), gradients = loss(shrunk.small_fn)(shrunk.small)
    assert_close(found, expected)
    assert_close(gradients, shrunk.arch.take(dense_gradients), GRADIENT)


def test_every_group_shrank(shrunk):
    assert shrunk.arch.resized == set(shrunk.graph.groups)
    shapes = {path: shrunk.arch.shape(path) for path in shrunk.graph.variables}
    leaves = jax.tree.leaves(shrunk.small)
    assert [leaf.shape for leaf in leaves] == list(shapes.values())


def test_seed_architecture_changes_nothing(networks):
    network = networks("flatten")
    same = morph.compact(network.fn, Architecture.of_seed(network.graph))
    expected = network.fn(network.variables, *network.inputs)
    np.testing.assert_array_equal(same(network.variables, *network.inputs), expected)


@pytest.mark.parametrize("name", ["residual", "nnx"])
def test_train_mode_updates_resized_statistics(networks, rng, name):
    shrunk = Shrunk(networks(name), rng)
    call = {"train": True, "mutable": ["batch_stats"], "rngs": {"dropout": jax.random.key(1)}}
    x = shrunk.network.inputs[0]
    _, expected = jax.jit(lambda v: shrunk.network.fn(v, x, **call))(shrunk.masked)
    _, found = jax.jit(lambda v: shrunk.small_fn(v, x, **call))(shrunk.small)
    whole = {**shrunk.masked, **expected}
    assert_close(found["batch_stats"], shrunk.arch.take(whole)["batch_stats"])


def test_train_mode_without_dropout_equals_the_masked_one(networks, rng):
    shrunk = Shrunk(networks("residual"), rng)
    call = {"train": True, "mutable": ["batch_stats"]}
    x = shrunk.network.inputs[0]
    expected, _ = jax.jit(lambda v: shrunk.network.fn(v, x, **call))(shrunk.masked)
    found, _ = jax.jit(lambda v: shrunk.small_fn(v, x, **call))(shrunk.small)
    assert_close(found, expected)


def test_dropout_keeps_its_rate_and_its_mean():
    def fn(v, x, key):
        h = x * v["params"]["a"].reshape(1, -1)
        return {
            "state": {
                "h": nn.Dropout(0.25, deterministic=False).apply({}, h, rngs={"dropout": key})
            }
        }

    # "h" is an update of the variable "h", so that it comes out at its new width.
    variables = {"params": {"a": jnp.ones(700)}, "state": {"h": jnp.zeros((50, 700))}}
    x, key = jnp.ones((50, 1)), jax.random.key(0)
    graph = reg.trace_channels(fn, variables, x, key)
    assert graph.widths == {"a": 700}
    arch = morph.shrink(graph, {"a": np.arange(700) < 400})
    out = morph.compact(fn, arch)(arch.take(variables), x, key)["state"]["h"]
    assert out.shape == (50, 400)
    np.testing.assert_allclose(np.unique(out), [0.0, 1.0 / 0.75], rtol=1e-6)
    # 20000 draws: one standard deviation of the share is 0.003.
    assert abs(float((out == 0).mean()) - 0.25) < 0.015
    assert abs(float(out.mean()) - 1.0) < 0.02


def test_dropout_is_the_masked_networks_and_draws_anew_with_another_key(networks, rng):
    shrunk = Shrunk(networks("flatten"), rng)
    x = shrunk.network.inputs[0]
    train = {"train": True, "rngs": {"dropout": jax.random.key(1)}}
    masked = shrunk.network.fn(shrunk.masked, x, **train)
    np.testing.assert_allclose(shrunk.small_fn(shrunk.small, x, **train), masked, atol=1e-5)
    first, second, again = (
        shrunk.small_fn(shrunk.small, x, train=True, rngs={"dropout": jax.random.key(k)})
        for k in (1, 2, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)


# Derivative rules


def test_gradient_of_relu_at_zero_is_zero():
    """All pre-activations are exactly 0: relu'(0) = 0, where the derivative of max would be 1/2."""

    def fn(v, x):
        return nn.relu(x @ v["a"]) @ v["c"]

    variables = {"a": jnp.zeros((5, 7)), "c": jnp.ones((7, 3))}
    small_fn, small, _, arch = shrink_function(fn, variables, jnp.ones((2, 5)))
    gradients = jax.grad(lambda v: small_fn(v, jnp.ones((2, 5))).sum())(small)
    assert arch.widths["a"] < 7
    assert not np.any(gradients["a"])


# Transformations and calls


def test_products_have_the_precision_that_is_set_when_they_are_traced():
    variables = {"a": jnp.ones((5, 7)), "b": jnp.ones((7, 3))}
    x = jnp.ones((2, 5))
    small_fn, small, *_ = shrink_function(lambda v, x: x @ v["a"] @ v["b"], variables, x)
    with jax.default_matmul_precision("highest"):
        assert "HIGHEST" in str(jax.make_jaxpr(small_fn)(small, x))
    assert "HIGHEST" not in str(jax.make_jaxpr(small_fn)(small, x))


def test_composes_with_vmap(networks, rng):
    shrunk = Shrunk(networks("flatten"), rng)
    xs = normal(3, *shrunk.network.inputs[0].shape)
    many = jax.jit(jax.vmap(shrunk.small_fn, (None, 0)))(shrunk.small, xs)
    one_by_one = jnp.stack([shrunk.network.fn(shrunk.masked, x) for x in xs])
    assert_close(many, one_by_one)


def test_composes_with_vmap_over_variables(networks, rng):
    shrunk = Shrunk(networks("flatten"), rng)
    x = shrunk.network.inputs[0]
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, 2.0 * leaf]), shrunk.small)
    found = jax.jit(jax.vmap(shrunk.small_fn, (0, None)))(both, x)
    doubled = jax.tree.map(lambda leaf: 2.0 * leaf, shrunk.masked)
    expected = jnp.stack([shrunk.network.fn(v, x) for v in (shrunk.masked, doubled)])
    assert_close(found, expected)


def test_other_batch_size_than_traced(network, rng):
    shrunk = Shrunk(network, rng)
    (x,) = network.inputs
    more = jnp.concatenate([x, x[:1], x, x])
    expected = jax.jit(network.fn)(shrunk.masked, more)
    assert_close(jax.jit(shrunk.small_fn)(shrunk.small, more), expected)
    assert jax.eval_shape(shrunk.small_fn, shrunk.small, x[:1]).shape[0] == 1


def test_constants_are_resized():
    table = np.arange(7.0, dtype=np.float32) + 1.0

    def fn(v, x):
        return nn.relu(x @ v["a"] * table.reshape(1, 7)) @ v["c"]

    variables, x = {"a": normal(5, 7), "c": normal(7, 3)}, normal(2, 5)
    small_fn, small, masked, _ = shrink_function(fn, variables, x)
    assert_close(small_fn(small, x), fn(masked, x))


def test_a_mean_keeps_the_count_of_the_seed():
    def fn(v, x):
        h = nn.relu(x @ v["a"])
        return h.mean(1) + (h @ v["c"]).mean(1)

    variables, x = {"a": normal(5, 7), "c": normal(7, 3)}, normal(2, 5)
    alive = {"a": np.arange(7) < 3, "c": np.arange(3) > 0}
    small_fn, small, masked, _ = shrink_function(fn, variables, x, alive=alive)
    assert_close(small_fn(small, x), fn(masked, x))


def test_calls_of_the_same_shapes_share_a_trace():
    traced = []

    def fn(v, x, *, double=False):
        traced.append(x.shape)
        h = odd_jvp(x @ v["a"]) @ v["c"]
        return 2.0 * h if double else h

    variables, x = {"a": normal(5, 7), "c": normal(7, 3)}, normal(2, 5)
    small_fn, small, _, _ = shrink_function(fn, variables, x)
    traced.clear()
    outs = [jax.jit(small_fn)(small, x), small_fn(small, x), small_fn(small, x + 0.0)]
    jax.jit(jax.grad(lambda v: small_fn(v, x).sum()))(small)
    assert traced == [(2, 5)]
    for out in outs[1:]:
        assert_close(out, outs[0])
    assert_close(small_fn(small, x, double=True), 2.0 * outs[0])
    small_fn(small, x[:1])
    assert traced == [(2, 5), (2, 5), (1, 5)]


def test_name_and_documentation_are_kept():
    def fn(v, x):
        """Says what it does."""
        return nn.relu(x @ v["a"]) @ v["c"]

    small_fn, *_ = shrink_function(fn, {"a": normal(5, 7), "c": normal(7, 3)}, normal(2, 5))
    assert (small_fn.__name__, small_fn.__doc__) == ("fn", "Says what it does.")


# Removed things are gone


def traced_flops(jaxpr):
    """2 x multiply-adds of all products and convolutions; a dilated input's zeros left out."""
    flops = 0
    for eqn in jaxpr.eqns:
        shapes = [v.aval.shape for v in eqn.invars]
        if eqn.primitive is primitives.dot_general_p:
            (contracted, _), _ = eqn.params["dimension_numbers"]
            out = eqn.outvars[0].aval.shape
            flops += 2 * math.prod(out) * math.prod(shapes[0][k] for k in contracted)
        elif eqn.primitive is primitives.conv_general_dilated_p:
            numbers = eqn.params["dimension_numbers"]
            lhs, kernel = shapes
            out = list(eqn.outvars[0].aval.shape)
            spatial = zip(numbers.out_spec[2:], numbers.lhs_spec[2:], strict=True)
            for (k, j), dilation in zip(spatial, eqn.params["lhs_dilation"], strict=True):
                out[k] = lhs[j] if dilation > 1 else out[k]
            flops += 2 * math.prod(out) * math.prod(kernel) // kernel[numbers.rhs_spec[0]]
        for value in eqn.params.values():
            if isinstance(value, Jaxpr | ClosedJaxpr):
                flops += traced_flops(getattr(value, "jaxpr", value))
    return flops


def test_flops_of_the_traced_function_are_the_cost_at_its_widths(shrunk):
    inputs = shrunk.network.inputs
    cost = reg.flops(shrunk.graph)
    dense = jax.make_jaxpr(shrunk.network.fn)(shrunk.network.variables, *inputs)
    small = jax.make_jaxpr(shrunk.small_fn)(shrunk.small, *inputs)
    assert cost() == traced_flops(dense.jaxpr)
    assert cost(shrunk.arch.widths) == traced_flops(small.jaxpr) < cost()


def test_parameters_are_the_cost_at_its_widths(shrunk):
    leaves = jax.tree.leaves(shrunk.small["params"])
    assert reg.model_size(shrunk.graph)(shrunk.arch.widths) == sum(leaf.size for leaf in leaves)


def test_no_seed_width_is_left(networks, rng):
    """The seed's widths are prime, its other sizes are not: no value of their size remains."""
    shrunk = Shrunk(networks("flatten"), rng)
    jaxpr = jax.make_jaxpr(shrunk.small_fn)(shrunk.small, *shrunk.network.inputs)
    sizes = {n for eqn in jaxpr.eqns for v in eqn.outvars for n in v.aval.shape}
    assert not sizes & {7, 11, 28}


def test_unused_equations_are_not_emitted():
    def fn(v, x):
        jnp.cos(x @ v["a"])
        return nn.relu(x @ v["a"]) @ v["c"]

    variables, x = {"a": normal(5, 7), "c": normal(7, 3)}, normal(2, 5)
    small_fn, small, *_ = shrink_function(fn, variables, x)
    assert primitives.cos_p in primitives_of(jax.make_jaxpr(fn)(variables, x).jaxpr)
    assert primitives.cos_p not in primitives_of(jax.make_jaxpr(small_fn)(small, x).jaxpr)


# Mistakes


def test_dense_variables_are_refused(networks, rng):
    shrunk = Shrunk(networks("flatten"), rng)
    wanted = (
        r"'params/Conv_0/bias' has shape \[7\], but the architecture resized it from \[7\] to "
        r"\[\d\]; pass architecture\.take\(variables\)"
    )
    with pytest.raises(ValueError, match=wanted):
        shrunk.small_fn(shrunk.network.variables, *shrunk.network.inputs)


def test_variables_of_another_model_are_refused(networks, rng):
    shrunk = Shrunk(networks("flatten"), rng)
    with pytest.raises(
        ValueError, match=r"the architecture has no variable 'params/Conv_1/kernel'"
    ):
        shrunk.small_fn({"params": {"Conv_1": {"kernel": jnp.ones(3)}}}, *shrunk.network.inputs)
