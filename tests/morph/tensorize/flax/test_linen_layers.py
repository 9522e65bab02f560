"""Layers of Linen and NNX with factorized kernels, against Flax's own with the dense kernel."""

from __future__ import annotations

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from kernel_cases import dense

import regularizers as reg
from morph.tensorize.flax import linen_layers as linen
from morph.tensorize.flax import nnx_layers

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RNG.standard_normal(shape, np.float32))


def drawn(init, *args):
    """Variables without an initializer's work, and with biases that are not zero."""
    shapes = jax.eval_shape(init, *args)
    return jax.tree.map(lambda leaf: normal(*leaf.shape).astype(leaf.dtype) / 2, shapes)


def dense_case(name, inputs=(2, 3, 30), outputs=24, rank=3, **options):
    shared = {name: options.pop(name) for name in ("cores", "factors", "mode") if name in options}
    return (
        partial(getattr(linen, name), outputs, rank=rank, **shared, **options),
        partial(getattr(nnx_layers, name), inputs[-1], outputs, rank=rank, **shared, **options),
        nn.Dense(outputs, **options),
        inputs,
    )


def conv_case(name, inputs=(2, 9, 8, 6), window=(3, 2), rank=3, full=None, **options):
    shared = {"rank": rank} if full is None else {"rank": rank, "full": full}
    return (
        partial(getattr(linen, name), 8, window, **shared, **options),
        partial(getattr(nnx_layers, name), inputs[-1], 8, window, **shared, **options),
        nn.Conv(8, window, **options),
        inputs,
    )


# The layer of Linen, of NNX, Flax's own, and the shape of inputs.
LAYERS = {
    "svd": dense_case("SVDDense"),
    "svd vector": dense_case("SVDDense", (30,), use_bias=False),
    "tt": dense_case("TTDense"),
    "tt factors": dense_case("TTDense", cores=2, factors=((5, 6), (12, 2)), precision="highest"),
    "tt reconstructed": dense_case("TTDense", mode="reconstructed"),
    "tucker": conv_case("TuckerConv", strides=(2, 1), padding="VALID"),
    "tucker full": conv_case("TuckerConv", full=True, kernel_dilation=(1, 2), padding=((2, 1), 3)),
    "tucker circular": conv_case("TuckerConv", (9, 8, 6), padding="CIRCULAR", use_bias=False),
    "tucker batches": conv_case(
        "TuckerConv", (2, 1, 9, 8, 6), input_dilation=(2, 1), padding=((1, 1), 2)
    ),
    "cp": conv_case("CPConv", strides=2, kernel_dilation=2),
    "cp causal": conv_case("CPConv", (2, 9, 6), window=3, padding="CAUSAL"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_equal_flax_with_the_dense_kernel(name):
    make_linen, make_nnx, flax, shape = LAYERS[name]
    x, layer = normal(*shape), make_linen()
    variables = drawn(layer.init, KEY, x)
    graphdef, abstract = nnx.split(nnx.eval_shape(lambda: make_nnx(rngs=nnx.Rngs(0))))
    leaves = jax.tree.leaves(variables["params"])
    assert [leaf.shape for leaf in jax.tree.leaves(abstract)] == [leaf.shape for leaf in leaves]
    state = jax.tree.unflatten(jax.tree.structure(abstract), leaves)

    @jax.jit
    def all_three(variables, state, x):
        same = nnx.merge(graphdef, state)(x)
        return layer.apply(variables, x), same, flax.apply(dense(variables), x)

    found, same, expected = all_three(variables, state, x)
    scale = float(jnp.abs(expected).max())
    np.testing.assert_allclose(found, expected, atol=2e-5 * scale)
    np.testing.assert_allclose(same, found, atol=1e-6 * scale)


@pytest.mark.parametrize("name", ["tt", "cp causal"])
def test_derivatives_and_batches(name):
    make, _, flax, shape = LAYERS[name]
    x, layer = normal(*shape), make()
    variables = drawn(layer.init, KEY, x)

    @jax.jit
    def gradients(variables):
        found = jax.grad(lambda v: jnp.square(layer.apply(v, x)).sum())(variables)
        return found, jax.grad(lambda v: jnp.square(flax.apply(dense(v), x)).sum())(variables)

    for own, other in zip(*map(jax.tree.leaves, gradients(variables)), strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-3, atol=1e-4 * float(jnp.abs(other).max()))
    rows = jax.jit(jax.vmap(layer.apply, (None, 0)))(variables, x)
    np.testing.assert_allclose(rows, jax.jit(layer.apply)(variables, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["factorized", "reconstructed"])
def test_embedding(mode):
    layer = linen.TTEmbed(30, 24, rank=3, mode=mode)
    ids, query = jnp.asarray([[0, 7, 29], [3, 3, -1]]), normal(2, 24)
    variables = drawn(layer.init, KEY, ids)
    flax = nn.Embed(30, 24)
    model = nnx.eval_shape(lambda: nnx_layers.TTEmbed(30, 24, rank=3, mode=mode, rngs=nnx.Rngs(0)))
    model.embedding.set_value(variables["params"]["embedding"])

    @jax.jit
    def all_three(variables):
        return [
            (
                layer.apply(variables, x, method=method),
                getattr(model, method)(x),
                flax.apply(dense(variables), x, method=method),
            )
            for method, x in (("__call__", ids), ("attend", query))
        ]

    for found, same, expected in all_three(variables):
        np.testing.assert_allclose(found, expected, atol=2e-5)
        np.testing.assert_allclose(same, found, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="integer"):
        layer.apply(variables, query)


@pytest.mark.promotes
def test_an_initializer_of_dense_kernels_tells_the_variance():
    @jax.jit
    def kernels():
        return [
            linen.TTDense(24, rank=4, kernel_init=like, param_dtype=dtype).init(KEY, x)["params"]
            for like, dtype in (
                (None, jnp.float32),
                (nn.initializers.normal(0.02), jnp.bfloat16),
                (nn.initializers.zeros, jnp.float32),
            )
        ]

    x = jnp.ones((1, 30))
    ours, like, zeros = (params["kernel"] for params in kernels())
    ratio = [float(jnp.vdot(a, b)) for a, b in zip(like.cores, ours.cores, strict=True)]
    ratio = math.prod(ratio) / math.prod(float(jnp.vdot(a, a)) for a in ours.cores)
    assert math.isclose(ratio, 0.02 * math.sqrt(30), rel_tol=0.02)
    assert like.dtype == jnp.bfloat16
    assert not zeros.dense().any()
    assert all(core.any() for core in zeros.cores[:-1])


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(linen.TuckerConv(8, (3, 3), rank=3, name="conv")(x))
        return linen.TTDense(6, rank=2, cores=2, dtype=jnp.bfloat16, name="head")(x.mean((1, 2)))


@pytest.mark.promotes
def test_a_network_trains_and_its_bonds_are_widths():
    x, net = normal(8, 5, 5, 4), Net()
    variables = jax.jit(net.init)(KEY, x)
    assert jax.eval_shape(net.apply, variables, x).dtype == jnp.bfloat16
    graph = reg.trace_channels(net.apply, variables, x)
    members = {member.path for group in graph.groups.values() for member in group.members}
    assert {"conv/kernel/in", "conv/kernel/core", "head/kernel/core1"} <= {
        path.removeprefix("params/") for path in members
    }
    # The head reads 8 channels as 4 x 2: two digits, besides the three bonds.
    assert sorted(group.width for group in graph.groups.values()) == [2, 2, 3, 3, 4]

    def loss(variables):
        return jnp.square(net.apply(variables, x).astype(jnp.float32) - x[:, 0, 0, :1]).mean()

    tx = optax.adam(0.03)

    def step(carry, _):
        variables, state = carry
        value, gradient = jax.value_and_grad(loss)(variables)
        updates, state = tx.update(gradient, state)
        return (optax.apply_updates(variables, updates), state), value

    _, losses = jax.jit(partial(jax.lax.scan, step, length=60))((variables, tx.init(variables)))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 0}, "whole number of at least 1, found 0"),
        ({"rank": "vbmf"}, "is a number, or one for each of"),
        ({"rank": {"r1": 2, "r2": 2, "r3": 99}}, "more than a tt kernel of shape"),
        ({"rank": {"r": 2}}, "ranks are for the bonds"),
        ({"rank": 2, "factors": ((5, 6), (12, 3))}, "do not multiply to the shape"),
        ({"rank": 2, "factors": ((5, 6), (24,))}, "as many factors of the input as of the output"),
        ({"rank": 2, "cores": 0}, "at least one core"),
        ({"rank": 2, "mode": "fastest"}, "mode must be one of"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message):
    x = normal(2, 30)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(linen.TTDense(24, **arguments).init, KEY, x)
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: nnx_layers.TTDense(30, 24, **arguments, rngs=nnx.Rngs(0))(x))


def test_options_that_have_no_meaning():
    with pytest.raises(TypeError, match="feature_group_count"):
        linen.TuckerConv(8, (3, 3), rank=2, feature_group_count=2)
