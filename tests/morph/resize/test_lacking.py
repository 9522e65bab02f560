"""What sums over a shrunk group lack is added again, by hand and against the masked function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from corpus.soundness import compare

import morph
import regularizers as reg

M, N, K, W = 5, 7, 3, 6
KEEP = np.asarray([True, False, True, False, False, True, True])  # 4 of 7


@pytest.fixture
def v(rng):
    shapes = {"a": (M, N), "b": (N, K), "c": (M, W), "d": (W, K)}
    return {k: jax.device_put(rng.normal(size=s).astype(np.float32)) for k, s in shapes.items()}


@pytest.fixture
def x(rng):
    return jax.device_put(rng.normal(size=(2, M)).astype(np.float32))


def beside(total):
    """`total` of a hidden layer, beside the network that makes the layer's width free."""
    return lambda v, x: (total(x @ v["a"]), (x @ v["a"]) @ v["b"])


def both(fn, v, x, keep=KEEP):
    """The masked and the compact function, and the compact one's variables."""
    graph = reg.trace_channels(fn, v, x)
    assert graph.groups["a"].exact
    arch = morph.shrink(graph, {"a": keep})
    masked = graph.mask(v, {"a": keep})
    return fn(masked, x), morph.compact(fn, arch), arch.take(masked)


def test_by_hand(v, x):
    """Three channels are removed; each held cos(0) = 1."""
    fn = beside(lambda h: jnp.cos(h).sum(1))
    expected, small, taken = both(fn, v, x)
    kept = jnp.cos(x @ taken["a"]).sum(1)
    np.testing.assert_allclose(small(taken, x)[0], kept + 3.0, rtol=1e-6)
    np.testing.assert_allclose(small(taken, x)[0], expected[0], rtol=1e-6)


def test_the_variance_by_hand(v, x):
    """Each removed channel held (0 - mean)^2, where the mean still divides by 7."""
    _, small, taken = both(beside(lambda h: h.var(1)), v, x)
    h = np.asarray(x @ taken["a"])
    mean = h.sum(1, keepdims=True) / N
    expected = (np.square(h - mean).sum(1) + 3 * mean[:, 0] ** 2) / N
    np.testing.assert_allclose(small(taken, x)[0], expected, rtol=1e-5)


TOTALS = {
    "through a transpose": lambda h: jnp.square(h.T - h.mean(1)[None]).sum(0),
    "through a new axis": lambda h: jnp.square(h - h.mean(1, keepdims=True))[:, None, :].sum(2),
    "over the batch, too": lambda h: jnp.exp(h - h.mean(1, keepdims=True)).sum(),
    "a scalar beside": lambda h: jnp.exp(h * 2.0 - 1.0).sum(1),
    "two in a row": lambda h: jnp.square(h - jnp.abs(h - h.mean()).mean()).sum(1),
    "a kernel's statistics": lambda h: h.std(1) / (1.0 + jnp.abs(h - h.mean(1)[:, None]).sum(1)),
    "in a jit": lambda h: jax.jit(lambda h: jnp.cos(h).sum(1))(h),
    "in remat": jax.checkpoint(lambda h: jnp.square(h - h.mean(1, keepdims=True)).sum(1)),
    "in a scan": lambda h: jax.lax.scan(
        lambda c, _: (c + jnp.cos(h).sum(1), None), jnp.zeros(2), None, length=3
    )[0],
    "in a branch": lambda h: jax.lax.cond(
        h.sum() > 0, lambda h: jnp.cos(h).sum(1), lambda h: jnp.exp(h).sum(1), h
    ),
    "in vmap": jax.vmap(lambda row: jnp.square(row - row.mean()).sum()),
}


@pytest.mark.parametrize("name", TOTALS)
def test_values_and_gradients(name, v, x):
    found = compare(beside(TOTALS[name]), {k: v[k] for k in ("a", "b")}, x)
    assert (found.resized, found.exact) == (1, 1)
    assert found.values < 1e-5
    assert found.gradients < 1e-5


def test_gradients_of_gradients(v, x):
    def fn(v, x):
        def energy(x):
            h = x @ v["a"]
            return jnp.log(jnp.square(h - h.mean(1, keepdims=True)).sum(1)).sum()

        return jax.grad(energy)(x), (x @ v["a"]) @ v["b"]

    found = compare(fn, {k: v[k] for k in ("a", "b")}, x)
    assert (found.resized, found.exact) == (1, 1)
    assert found.values < 1e-5
    assert found.gradients < 1e-5


def test_other_batches_and_jit_and_vmap(v, x):
    fn = beside(lambda h: h.var(1, ddof=1))
    graph = reg.trace_channels(fn, v, x)
    alive = {"a": KEEP}
    arch, masked = morph.shrink(graph, alive), graph.mask(v, alive)
    small, taken = morph.compact(fn, arch), arch.take(masked)
    for rows in (1, 3):
        batch = jnp.tile(x[:1], (rows, 1)) * jnp.arange(1.0, rows + 1)[:, None]
        for a, b in zip(jax.jit(small)(taken, batch), fn(masked, batch), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    stacked = jnp.stack([x, x * 2.0])
    over = jax.vmap(small, (None, 0))(taken, stacked)
    for a, b in zip(over, jax.vmap(fn, (None, 0))(masked, stacked), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_a_concatenation_of_two_groups_lacks_both(v, x):
    def fn(v, x):
        h, g = x @ v["a"], x @ v["c"]
        y = h @ v["b"] + g @ v["d"]
        return jnp.concatenate([h, g], 1).var(1), y

    found = compare(fn, v, x)
    assert (found.resized, found.exact) == (2, 2)
    assert found.values < 1e-5
    assert found.gradients < 1e-5


def test_nothing_is_added_where_dead_channels_are_zero_or_nothing_is_removed(v, x):
    def adds(fn, keep):
        _, small, taken = both(fn, v, x, keep)
        return [eqn.primitive.name for eqn in jax.make_jaxpr(small)(taken, x).jaxpr.eqns]

    plain = beside(lambda h: jnp.sin(h).sum(1))
    summed = beside(lambda h: jnp.cos(h).sum(1))
    assert "add" not in adds(plain, KEEP)
    assert "add" not in adds(summed, np.ones(N, bool))
    assert "add" in adds(summed, KEEP)


def test_a_derivative_rule_of_ones_own_would_not_add_it(v, x):
    """So that the group is inexact there."""

    @jax.custom_jvp
    def total(h):
        return jnp.cos(h).sum(1)

    @total.defjvp
    def rule(primals, tangents):
        return total(*primals), (-jnp.sin(primals[0]) * tangents[0]).sum(1)

    group = reg.trace_channels(beside(total), v, x).groups["a"]
    assert not group.exact
    assert "where reduce_sum consumes them" in group.why_inexact
