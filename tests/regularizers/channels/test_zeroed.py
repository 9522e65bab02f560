"""Which axes are zeroed with a dead channel: not what divides, and nothing that training cannot."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from corpus.soundness import compare, fill

import morph
import regularizers as reg

M, N, K = 5, 7, 3
KEEP = np.asarray([True, False, True, False, False, True, True])


@pytest.fixture
def v(rng):
    shapes = {"a": (M, N), "z": (N, K), "t": (N,), "b": (N,)}
    drawn = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    return {**drawn, "t": np.abs(drawn["t"]) + 0.5}


@pytest.fixture
def x(rng):
    return rng.normal(size=(4, M)).astype(np.float32)


def row(leaf):
    return leaf[None]


DIVISORS = {
    "snake": lambda h, t: h + jnp.sin(row(t) * h) ** 2 / row(t),
    "snake by an inverse": lambda h, t: h + jnp.sin(row(t) * h) ** 2 * (1.0 / row(t)),
    "a temperature": lambda h, t: jnp.tanh(h / row(t)),
    "a reciprocal": lambda h, t: h * jax.lax.reciprocal(row(t)),
    "a negative power": lambda h, t: h * row(t) ** -1.5,
    "a root": lambda h, t: h * jax.lax.rsqrt(row(t)),
    "a step size": lambda h, t: jnp.round(h / row(t)) * row(t),
    "an absolute step size": lambda h, t: jnp.tanh(h / jnp.abs(t).reshape(1, N)) * row(t),
    "a logarithm": lambda h, t: h * jnp.log(row(t)),
    "two of them": lambda h, t: (h / row(t)) / jnp.square(row(t)),
    "a remainder": lambda h, t: jax.lax.rem(h, row(t)),
}


@pytest.mark.parametrize("name", DIVISORS)
def test_what_divides_is_left_alone(name, v, x):
    def fn(v, x):
        return DIVISORS[name](x @ v["a"], v["t"]) @ v["z"]

    v = {k: v[k] for k in ("a", "t", "z")}
    graph = reg.trace_channels(fn, v, x)
    group = graph.groups["a"]
    assert group.exact
    assert not graph.variables["t"].produces
    assert "t axis 0" in graph.explain("a")
    assert "left alone" in graph.explain("t")
    np.testing.assert_array_equal(graph.mask(v, {"a": KEEP})["t"], v["t"])
    found = compare(fn, v, x, gradients=name != "a remainder")
    assert found.resized == 1
    assert found.values < 1e-5


def test_zeros_of_a_kernel_do_not_mend_what_is_not_finite(v, x):
    """The rows of a kernel are zeroed for its scale's sake; 1/0 times that is not zero."""

    def fn(v, x):
        h = (x @ v["a"]) * (1.0 / row(v["t"]))
        return h @ (v["z"] / (jnp.abs(v["z"]).max(0, keepdims=True) + 1e-3))

    v = {k: v[k] for k in ("a", "t", "z")}
    graph = reg.trace_channels(fn, v, x)
    assert 0 in graph.variables["z"].produces
    assert not graph.variables["t"].produces
    assert compare(fn, v, x).values < 1e-5


def test_what_divides_behind_an_eps_produces_as_before(v, x):
    def fn(v, x):
        h = x @ v["a"]
        return (h + jnp.sin(row(v["t"]) * h) ** 2 / (row(v["t"]) + 1e-3)) @ v["z"]

    graph = reg.trace_channels(fn, v, x)
    assert graph.groups["a"].exact
    assert graph.variables["t"].produces == {0}


def test_a_kernel_that_is_divided_by_its_deviation_dies_with_the_rows_behind_it(v, x):
    """Weight standardisation without eps: a column of zeros is 0/0, and must not be made."""

    def fn(v, x):
        kernel = (v["a"] - v["a"].mean(0, keepdims=True)) / jnp.std(v["a"], 0, keepdims=True)
        return jnp.tanh(x @ kernel) @ v["z"]

    v = {k: v[k] for k in ("a", "z")}
    graph = reg.trace_channels(fn, v, x)
    assert graph.groups["a"].exact
    assert not graph.variables["a"].produces
    assert 0 in graph.variables["z"].produces
    found = compare(fn, v, x)
    assert found.resized == 1
    assert max(found.values, found.gradients) < 1e-5


def test_activations_that_are_divided_by_their_deviation_are_inexact(v, x):
    def fn(v, x):
        h = x @ v["a"]
        return ((h - h.mean(0, keepdims=True)) / jnp.std(h, 0, keepdims=True)) @ v["z"]

    group = reg.trace_channels(fn, v, x).groups["a"]
    assert "not even finite" in group.why_inexact


# Statistics


class Normalised(nn.Module):
    """A batch norm in the middle; `conv` with a border that sees fewer channels."""

    scale: bool = False
    conv: bool = False

    @nn.compact
    def __call__(self, x, train=False):
        norm = nn.BatchNorm(use_running_average=not train, use_scale=self.scale, name="bn")
        if self.conv:
            h = nn.relu(norm(nn.Conv(N, (2,), name="h")(x[..., None])))
            return nn.Conv(K, (3,), name="z")(h).mean(1)
        return nn.Dense(K, name="z")(nn.relu(norm(nn.Dense(N, name="h")(x))))


@pytest.mark.parametrize("conv", [False, True])
def test_a_statistic_that_stays_behind_is_silenced_by_the_rows_of_the_kernel(conv, x, rng):
    """Training makes no zeros of the running mean: without a scale the next kernel's rows die."""
    model = Normalised(conv=conv)
    v = fill(jax.eval_shape(model.init, jax.random.key(0), x), rng)
    graph = reg.trace_channels(model.apply, v, x)
    (name,) = graph.groups
    path = "params/z/kernel"
    assert graph.variables[path].axes[-2] == name
    assert len(graph.variables[path].produces) == 2
    alive = {name: KEEP}
    params = graph.mask(v, alive)["params"]  # as the penalty makes them: statistics are not pulled
    stale = {**v, "params": params}
    assert np.all(np.asarray(stale["batch_stats"]["bn"]["mean"]))
    arch = morph.shrink(graph, alive)
    small = morph.compact(model.apply, arch)(arch.take(stale), x)
    np.testing.assert_allclose(small, model.apply(stale, x), atol=1e-5)


def test_a_scale_silences_a_statistic_by_itself(x):
    v = jax.eval_shape(Normalised(scale=True).init, jax.random.key(0), x)
    graph = reg.trace_channels(Normalised(scale=True).apply, v, x)
    assert graph.variables["params/z/kernel"].produces == {1}


@pytest.mark.promotes
def test_training_kills_channels_whose_statistics_stay(x, rng):
    model, x = Normalised(), x + 1.5
    v, y = model.init(jax.random.key(0), x), rng.normal(size=(4, K)).astype(np.float32)
    graph = reg.trace_channels(model.apply, v, x)
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph), threshold=0.0)
    tx = reg.proximal(optax.adam(1e-2), regularizer, strength=0.5)

    @jax.jit
    def step(v, state):
        def loss(params):
            out, update = model.apply(
                {**v, "params": params}, x, train=True, mutable=["batch_stats"]
            )
            return jnp.square(out - y).mean(), update

        slopes, update = jax.grad(loss, has_aux=True)(v["params"])
        change, state = tx.update({"params": slopes}, state, {"params": v["params"]})
        return {**optax.apply_updates({"params": v["params"]}, change), **update}, state

    state = tx.init({"params": v["params"]})
    for _ in range(60):
        v, state = step(v, state)
        alive = regularizer.alive(v)
        if np.sum(alive["h"]) <= 4:
            break
    assert 1 <= np.sum(alive["h"]) <= 4
    arch = morph.shrink(graph, alive)
    small = morph.compact(model.apply, arch)(arch.take(v), x)
    np.testing.assert_allclose(small, model.apply(v, x), atol=1e-5)


def test_statistics_are_masked_where_no_kernel_silences_them(x, rng):
    """A sum over channels takes in the stale mean: only `graph.mask` makes it go."""

    class Summed(nn.Module):
        @nn.compact
        def __call__(self, x):
            norm = nn.BatchNorm(use_running_average=True, use_scale=False, name="bn")
            return norm(nn.Dense(N, name="h")(x)).sum(-1)

    v = fill(jax.eval_shape(Summed().init, jax.random.key(0), x), rng)
    found = compare(Summed().apply, v, x)
    assert (found.exact, found.resized) == (1, 1)
    assert found.values < 1e-5
