"""Constant orders of channels: shuffles, reversals, `h[:, perm]`, followed to where they lead."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from corpus.soundness import compare, draw_alive, fill
from jax import lax

import morph
import regularizers as reg
from regularizers.primitives import axes as ax
from regularizers.primitives.orders import segments, transposed

M, N, K = 5, 8, 3
PERM = np.asarray([3, 0, 7, 1, 6, 2, 5, 4])
MIXED = np.random.default_rng(0).permutation(2 * N)  # two parts, one through the other


def mixed(v, h, *, order, cut):
    """Two groups and a fixed channel in an order that takes only the latter apart, then cut."""
    joined = jnp.concatenate([h, jnp.tanh(h @ v["w"]), h[:, :1] * 0 + 1], 1)
    return joined[:, order][:, cut] @ v["y"]


@pytest.fixture
def v(rng):
    shapes = {"a": (M, N), "b": (M, N), "w": (N, N), "z": (N, K), "y": (2 * N, K)}
    return {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}


@pytest.fixture
def x(rng):
    return rng.normal(size=(4, M)).astype(np.float32)


def of(v, *names):
    return {name: v[name] for name in names}


FREE = {  # what is computed, the variables, how many groups, what the last axis is made of
    "indexed": (lambda v, h: h[:, PERM] @ v["z"], "az", 1, "a shuffled"),
    "taken": (lambda v, h: jnp.take(h, PERM, axis=1) @ v["z"], "az", 1, "a shuffled"),
    "taken and clipped": (
        lambda v, h: jnp.take(h, PERM, axis=-1, mode="clip") @ v["z"], "az", 1, "a shuffled",
    ),
    "traced": (lambda v, h: h[:, jnp.asarray(PERM)] @ v["z"], "az", 1, "a shuffled"),
    "computed": (
        lambda v, h: h[:, (3 * jnp.arange(N) + 1) % N] @ v["z"], "az", 1, "a shuffled",
    ),
    "reversed": (lambda v, h: h[:, ::-1] @ v["z"], "az", 1, "a reversed"),
    "flipped": (lambda v, h: jnp.flip(h, 1) @ v["z"], "az", 1, "a reversed"),
    "back again": (lambda v, h: h[:, PERM][:, np.argsort(PERM)] @ v["z"], "az", 1, "a"),
    "there and back": (lambda v, h: h[:, PERM] @ v["w"].T[PERM] @ v["z"], "awz", 2, "w"),
    "twice": (lambda v, h: h[:, PERM][:, ::-1] @ v["z"], "az", 1, "a shuffled"),
    "in the middle": (
        lambda v, h: jnp.swapaxes(h, 0, 1)[PERM].T @ v["z"], "az", 1, "a shuffled",
    ),
    "a kernel": (lambda v, h: h @ v["w"][:, PERM] @ v["z"], "awz", 2, "w shuffled"),
    "a kernel's rows": (lambda v, h: h @ v["z"][PERM], "az", 1, "a"),
    "rolled": (lambda v, h: jnp.roll(h, 3, 1) @ v["z"], "az", 2, "(a[1.1] + a[1.0])"),
    "halves swapped": (
        lambda v, h: jnp.split(h[:, [4, 5, 6, 7, 0, 1, 2, 3]], 2, 1)[0] @ v["z"][:4]
        + h @ v["z"], "az", 1, "(a + a)",
    ),
    "reversed and cut": (
        lambda v, h: h[:, ::-1][:, :3] @ v["z"][:3], "az", 2, None,
    ),
    "shuffled and cut": (
        lambda v, h: jax.nn.silu(h[:, PERM][:, :3]) @ v["z"][5:] + h[:, PERM][:, 3:] @ v["z"][:5],
        "az", 2, "(a[1.1] + a[1.0])",
    ),
    "mixed, after what is cut": (
        partial(mixed, order=np.append(2 * N, MIXED), cut=slice(1, None)), "awy", 2, None,
    ),
    "mixed, before what is cut": (
        partial(mixed, order=np.append(MIXED, 2 * N), cut=slice(-1)), "awy", 2, None,
    ),
    "all joined": (
        lambda v, h: jnp.concatenate([h, h[:, PERM]], 1) @ v["y"], "ay", 1, "(a + a shuffled)",
    ),
    "added to another": (
        lambda v, h: (h[:, PERM] + h @ v["w"]) @ v["z"], "awz", 1, None,
    ),
    "in a loop": (
        lambda v, h: lax.scan(lambda c, _: (jnp.tanh(c[:, PERM] @ v["w"]), None), h, None, 2)[0]
        @ v["z"], "awz", 1, "a",
    ),
    "in a call": (lambda v, h: jax.jit(lambda h: h[:, PERM])(h) @ v["z"], "az", 1, "a shuffled"),
    "by groups": (
        lambda v, h: h[:, PERM].reshape(4, 4, 2).sum(1) @ v["z"][:2], "az", 2, None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FREE)
def test_an_order_is_followed(name, v, x):
    apply, names, groups, made = FREE[name]

    def fn(v, x):
        return apply(v, jnp.tanh(x @ v["a"]))

    v = of(v, *names)
    graph = reg.trace_channels(fn, v, x)
    assert len(graph.groups) == groups
    last = list(graph.variables.values())[-1]
    assert made is None or str(last.axes[0]) == made or str(graph.variables["z"].axes[0]) == made
    found = compare(fn, v, x)
    assert found.resized == found.exact == groups
    assert max(found.values, found.gradients) < 1e-5


PINNED = {
    "added to itself": lambda v, h, x: (h + h[:, PERM]) @ v["z"],
    "read twice": lambda v, h, x: h[:, [0, 0, 1, 2, 3, 4, 5, 6]] @ v["z"],
    "some": lambda v, h, x: h[:, [5, 1]] @ v["z"][:2],
    "from data": lambda v, h, x: h[:, jnp.argsort(x[0, :1] * jnp.arange(N))] @ v["z"],
}


@pytest.mark.promotes
@pytest.mark.parametrize("name", PINNED)
def test_what_is_no_constant_order_of_all_pins(name, v, x):
    def fn(v, x):
        return PINNED[name](v, x @ v["a"], x)

    v = of(v, "a", "z")
    assert reg.trace_channels(fn, v, x).widths == {}


class Shuffled(nn.Module):
    """ShuffleNet's unit, shuffled by constant positions."""

    groups: int = 2

    @nn.compact
    def __call__(self, x):
        order = np.arange(N).reshape(self.groups, -1).T.ravel()
        x = nn.Conv(N, (1, 1), name="stem")(x)
        y = nn.relu(nn.Conv(N, (1, 1), feature_group_count=self.groups, name="in")(x))
        y = jnp.take(y, order, axis=-1)
        y = nn.Conv(N, (3, 3), feature_group_count=N, name="depthwise")(y)
        y = nn.Conv(N, (1, 1), feature_group_count=self.groups, name="out")(y)
        return nn.Dense(K, name="head")((x + y).mean((1, 2)))


def test_shufflenet(rng):
    x = rng.normal(size=(2, 4, 4, 3)).astype(np.float32)
    fn = Shuffled().apply
    variables = fill(jax.eval_shape(Shuffled().init, jax.random.key(0), x), rng)
    found = compare(fn, variables, x)
    assert found.resized == found.groups >= 3
    assert max(found.values, found.gradients) < 1e-5


def test_an_architecture_with_orders_is_saved_widened_and_composed(v, x, tmp_path):
    def fn(v, x):
        h = jnp.tanh(x @ v["a"])
        return jnp.concatenate([h[:, PERM], h[:, ::-1]], 1) @ v["y"]

    v = of(v, "a", "y")
    graph = reg.trace_channels(fn, v, x)
    arch = morph.shrink(graph, draw_alive(graph, np.random.default_rng(0), 0.6))
    arch.save(tmp_path / "a.json")
    assert morph.Architecture.load(tmp_path / "a.json") == arch
    masked = graph.mask(v, {"a": np.isin(np.arange(N), arch.groups["a"].parents)})
    small, small_fn = arch.take(masked), morph.compact(fn, arch)
    np.testing.assert_allclose(small_fn(small, x), fn(masked, x), atol=1e-5)

    wide = morph.expand(arch, reg.flops(graph), budget=reg.flops(graph)() * 1.5, warm=True)
    assert wide.widths["a"] > N
    cloned = wide.take(masked)
    np.testing.assert_allclose(morph.compact(fn, wide)(cloned, x), fn(masked, x), atol=1e-5)

    again = reg.trace_channels(small_fn, small, x)
    fewer = {"a": np.arange(arch.widths["a"]) % 2 == 0}
    second = morph.shrink(again, fewer)
    both = arch.then(second)
    expected = small_fn(again.mask(small, fewer), x)
    found = morph.compact(fn, both)(both.take(masked), x)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_how_an_order_acts_on_parts_and_factors():
    assert segments((2, 3), (2, 3, 4, 0, 1)) == [((1,), (0, 1, 2)), ((0,), (0, 1))]
    assert segments((2, 3), (4, 3, 2, 1, 0)) == [((1,), (2, 1, 0)), ((0,), (1, 0))]
    assert segments((2, 3), (0, 2, 1, 3, 4)) is None
    both = ((0, 2), (0, 2, 1))  # the first part and the last, mixed; what is between comes first
    assert segments((2, 3, 1), (4, 2, 3, 0, 5, 1)) == [((1,), (2, 0, 1)), both]
    assert transposed((2, 3), (0, 3, 1, 4, 2, 5)) == ((1, 0), [(0, 1), (0, 1, 2)])
    assert transposed((2, 3), (5, 4, 3, 2, 1, 0)) == ((0, 1), [(1, 0), (2, 1, 0)])
    assert transposed((2, 3), (1, 0, 2, 3, 4, 5)) is None


@pytest.mark.parametrize(
    "axis",
    ["g", ax.Sum((2, "g")), ax.Product(("g", 2)), ax.Sum(("h", "g")), ax.Product(("h", "g"))],
)
def test_positions_in_another_order_are_those_of_an_array(axis, rng):
    """Slicing and then reordering is reordering and then slicing."""
    widths = {"g": 4, "h": 3}
    parents = {"g": np.asarray([0, 2, 3]), "h": np.asarray([1, 2])}
    n = ax.size(axis, widths)
    for order in (rng.permutation(n), np.arange(n)[::-1], np.roll(np.arange(n), 2)):
        turned = ax.make_permuted(axis, order.tolist())
        values = np.arange(n)
        old, new = (ax.parent_positions(a, parents, widths) for a in (axis, turned))
        moved = ax.arrangement(axis, order.tolist(), parents, widths)
        np.testing.assert_array_equal(values[order][new], values[old][moved])
        alive = {name: np.isin(np.arange(widths[name]), parents[name]) for name in widths}
        assert ax.alive_positions(turned, alive).sum() == len(new)
        assert ax.from_json(ax.to_json(turned)) == turned
