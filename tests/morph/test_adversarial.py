"""Functions made to trick the analysis: what it calls exact must be exact, what it frees free."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import morph
import regularizers as reg

M, N, K = 4, 6, 2
KEEP = np.asarray([True, False, True, False, False, True])


@pytest.fixture
def v():
    rng = np.random.default_rng(0)
    shapes = {"a": (M, N), "b": (N, K), "c": (M, 1), "e": (5, N), "k": (N, N, K), "s": (N,)}
    return {
        name: jax.device_put(rng.normal(size=s).astype(np.float32)) for name, s in shapes.items()
    }


@pytest.fixture
def x():
    return jax.device_put(np.random.default_rng(1).normal(size=(3, M)).astype(np.float32))


def difference(fn, v, *inputs):
    """The largest difference that removing channels makes beside masking them; and the graph."""
    graph = reg.trace_channels(fn, v, *inputs)
    alive = {name: KEEP for name, group in graph.groups.items() if group.width == N}
    arch = morph.shrink(graph, alive)
    masked = graph.mask(v, {n: a for n, a in alive.items() if graph.groups[n].exact})
    small = morph.compact(fn, arch)(arch.take(masked), *inputs)
    return float(jnp.abs(fn(masked, *inputs) - small).max()), graph


def two_axes(v, x):
    h = x @ v["a"]
    return jnp.sum(h[:, :, None] * jnp.exp(h)[:, None, :], axis=(1, 2))


def bilinear(v, x):
    h = x @ v["a"]
    return jnp.tensordot(nn.relu(h)[:, :, None] * nn.sigmoid(h)[:, None, :], v["k"], 2)


def filled(v, x):
    ids = jnp.asarray([0, 9, 2])
    return v["e"].at[ids].get(mode="fill", fill_value=1.0) @ v["b"]


def pooled_padding(v, x):
    window = ((2, 1), (1, 1), ((2, 2), (0, 0)))
    return jnp.maximum(lax.reduce_window(x @ v["a"], -jnp.inf, lax.max, *window), -9.0) @ v["b"]


def put_together(v, x):
    h = x @ v["a"]
    h, e = jax.device_put((h, jnp.exp(h)))
    return h @ v["b"] + e @ v["k"][0]


@pytest.mark.parametrize("fn", [two_axes, put_together])
def test_a_dead_channel_that_is_not_zero_everywhere_is_inexact(fn, v, x):
    changed, graph = difference(fn, v, x)
    assert not any(group.exact for group in graph.groups.values())
    assert changed == 0.0  # such groups stay whole


@pytest.mark.parametrize("fn", [bilinear, filled, pooled_padding])
def test_or_dies_with_the_rows_of_the_kernel_that_takes_it_in(fn, v, x):
    changed, graph = difference(fn, v, x)
    (group,) = (group for group in graph.groups.values() if group.width == N)
    assert group.exact
    assert any(member.produces and member.consumes for member in group.members)
    assert changed < 1e-5


def looked_up(v, x):
    return jnp.take(v["e"], jnp.abs(x[:, 0]).astype(int), axis=0) @ v["b"]


def pooled(v, x):
    h = nn.max_pool((x @ v["a"])[:, None, :], (2,), padding="SAME")
    return h[:, 0] @ v["b"]


def behind_a_barrier(v, x):
    kernel, bias = lax.optimization_barrier((v["a"], v["s"]))
    return (x @ kernel + bias[None]) @ v["b"]


def noisy(v, x):
    return (x @ v["a"] * jax.random.normal(jax.random.key(0), (1, N))) @ v["b"]


def dropped(v, x):
    keep = jax.random.bernoulli(jax.random.key(1), 0.5, (3, N))
    return jnp.where(keep, nn.relu(x @ v["a"]) / 0.5, 0.0) @ v["b"]


def padded_inside(v, x):
    wide = lax.pad(x @ v["c"], jnp.float32(0), [(0, 0, 0), (0, N - 1, 1)])
    return (wide + x @ v["a"]) @ v["b"]


def empty_slice(v, x):
    h = x @ v["a"]
    return h[:, :0].sum() + h @ v["b"]


def shuffled(v, x):
    h = nn.relu(x @ v["a"])
    return h[:, jnp.asarray([3, 0, 5, 1, 4, 2])] @ v["b"]


def quantized(v, x):
    h = x @ v["a"]
    step = jnp.maximum(jnp.abs(h).max(), 1e-3) / 127.0
    return jnp.round(h / step) * step @ v["b"]


def powered(v, x):
    return jnp.abs(x @ v["a"]) ** 1.5 @ v["b"]


def snake(v, x):
    h = x @ v["a"]
    return (h + jnp.sin(v["s"][None] * h) ** 2 / v["s"][None]) @ v["b"]


@pytest.mark.parametrize(
    "fn",
    [
        looked_up, pooled, behind_a_barrier, noisy, dropped, padded_inside, empty_slice, shuffled,
        quantized, powered, snake,
    ],
)  # fmt: skip
def test_what_is_free_is_removed_exactly(fn, v, x):
    changed, graph = difference(fn, v, x)
    resized = [group for group in graph.groups.values() if group.width in (N, N - 1)]
    assert resized
    assert all(group.exact for group in resized)
    assert changed < 1e-5


def test_outputs_that_look_like_variables_keep_their_widths(x):
    rng = np.random.default_rng(0)
    pair = [jax.device_put(rng.normal(size=s).astype(np.float32)) for s in ((M, N), (N, M))]

    def both(v, x):
        return x[:, :1].sum() + v[0], (x @ v[0]) @ v[1]

    assert reg.trace_channels(both, pair, x).groups == {}

    def named(v, x):
        h = x[0] @ v["a"]
        return {"loss": (h @ v["b"]).sum(), "s": h * v["s"]}

    v = {"a": pair[0], "b": pair[1], "s": jnp.ones(N)}
    assert N not in reg.trace_channels(named, v, x).widths.values()


def test_weak_types_and_static_values_are_told_apart(v, x):
    graph = reg.trace_channels(lambda v, x: (x @ v["a"]) @ v["b"], v, x)
    arch = morph.shrink(graph, {"a": KEEP})
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), arch.take(v))

    def scaled(v, x, by):
        return (x @ v["a"]) @ v["b"] * by

    small = morph.compact(scaled, arch)
    assert small(half, x.astype(jnp.bfloat16), jnp.asarray(2.0)).dtype == jnp.bfloat16

    def static(v, x, by):
        return jnp.asarray(by) + 0 * x[0, 0].astype(int)

    of = morph.compact(static, arch)
    kinds = [of(arch.take(v), x, by).dtype for by in (1, True, 1.0)]
    assert kinds == [static(v, x, by).dtype for by in (1, True, 1.0)]
    negative = morph.compact(lambda v, x, by: jnp.asarray(by), arch)
    signs = [bool(jnp.signbit(negative(arch.take(v), x, by))) for by in (0.0, -0.0)]
    assert signs == [False, True]


def test_many_static_values_do_not_pile_up_plans(v, x):
    graph = reg.trace_channels(lambda v, x: (x @ v["a"]) @ v["b"], v, x)
    arch = morph.shrink(graph, {"a": KEEP})
    small = morph.compact(lambda v, x, by: (x @ v["a"]) @ v["b"] * by, arch)
    taken = arch.take(v)
    for by in range(70):
        small(taken, x, by)
    plans = next(c.cell_contents for c in small.__closure__ if isinstance(c.cell_contents, dict))
    assert len(plans) == 64
