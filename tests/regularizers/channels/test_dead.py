"""Dead channels that are numbers, or all alike: folded into biases, closed, or added to sums."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from corpus.soundness import compare, fill
from jax import lax

import morph
import regularizers as reg

M, N, K, B = 5, 7, 3, 4
KEEP = np.asarray([True, False, True, False, False, True, True])


@pytest.fixture
def v(rng):
    shapes = {"a": (M, N), "b": (N, K), "bias": (K,), "q": (N, N), "s": (N,)}
    return {k: jnp.asarray(rng.normal(size=s) / 2, jnp.float32) for k, s in shapes.items()}


@pytest.fixture
def x(rng):
    return jax.device_put(rng.normal(size=(B, M)).astype(np.float32))


def of(v, *names):
    return {name: v[name] for name in names}


def assert_folds(fn, v, *inputs, numbers, keep=KEEP, tolerance=1e-5):
    """fn(mask) == fn(fold) == compact(fold), for the one group, whose dead channels are numbers."""
    graph = reg.trace_channels(fn, v, *inputs)
    (group,) = graph.groups.values()
    assert not group.exact
    assert "biases can take it, by graph.fold" in group.why_inexact
    np.testing.assert_allclose([fold.number for fold in group.folds], numbers, rtol=1e-6)
    alive = {group.name: keep}
    assert not morph.shrink(graph, alive).resized  # only when asked
    arch = morph.shrink(graph, alive, fold=True)
    assert arch.widths == {group.name: keep.sum()}
    masked, folded = graph.mask(v, alive), graph.fold(v, alive)
    expected = np.asarray(fn(masked, *inputs), np.float32)
    largest = np.abs(expected).max()
    assert np.abs(fn(graph.mask(v, {}), *inputs) - expected).max() > 0.01 * largest
    small = morph.compact(fn, arch)(arch.take(folded), *inputs)
    for found in (fn(folded, *inputs), small):
        np.testing.assert_allclose(
            np.asarray(found, np.float32), expected, rtol=0, atol=tolerance * largest
        )


def assert_inexact(fn, v, *inputs, why):
    graph = reg.trace_channels(fn, v, *inputs)
    assert graph.groups
    for group in graph.groups.values():
        assert not group.exact
        assert not group.folds
        assert why in group.why_inexact


# Numbers that biases take


@pytest.mark.parametrize(
    ("act", "number"),
    [
        (jax.nn.sigmoid, 0.5),
        (jax.nn.softplus, np.log(2.0)),
        (jnp.exp, 1.0),
        (jnp.cos, 1.0),
        (lambda h: 2.0 - h, 2.0),
        (lambda h: jax.nn.sigmoid(h) * 3.0 + 1.0, 2.5),
    ],
    ids=["sigmoid", "softplus", "exp", "cos", "two", "affine"],
)
def test_a_number_is_folded_into_the_bias(act, number, v, x):
    def fn(v, x):
        return act(x @ v["a"]) @ v["b"] + v["bias"].reshape(1, K)

    assert_folds(fn, of(v, "a", "b", "bias"), x, numbers=[number])


def test_by_hand(v, x):
    """One dead channel of 1/2 adds half its row of the kernel to the bias."""

    def fn(v, x):
        return jax.nn.sigmoid(x @ v["a"]) @ v["b"] + v["bias"].reshape(1, K)

    v = of(v, "a", "b", "bias")
    alive = {"a": np.arange(N) != 2}
    folded = reg.trace_channels(fn, v, x).fold(v, alive)
    np.testing.assert_allclose(folded["bias"], v["bias"] + 0.5 * v["b"][2], rtol=1e-6)
    np.testing.assert_array_equal(folded["b"][2], 0.0)
    np.testing.assert_array_equal(folded["a"][:, 2], 0.0)


def test_two_layers_that_see_the_number(v, x):
    def fn(v, x):
        h = jax.nn.sigmoid(x @ v["a"])
        return (h @ v["b"] + v["bias"].reshape(1, K)) * jnp.tanh(h @ v["b2"] + v["bias2"][None])

    v = of(v, "a", "b", "bias") | {"b2": v["b"] + 1.0, "bias2": v["bias"] - 1.0}
    assert_folds(fn, v, x, numbers=[0.5, 0.5])


def test_a_flattened_map(rng):
    """Every channel is several rows of the kernel."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.sigmoid(nn.Conv(N, (3, 3))(x))
            return nn.Dense(K)(x.reshape(x.shape[0], -1))

    x = jax.device_put(rng.normal(size=(2, 3, 2, 2)).astype(np.float32))
    variables = fill(jax.eval_shape(Net().init, jax.random.key(0), x), rng)
    assert_folds(Net().apply, variables, x, numbers=[0.5])


class Convolved(nn.Module):
    """A sigmoid map into a convolution."""

    padding: str

    @nn.compact
    def __call__(self, x):
        x = nn.sigmoid(nn.Conv(N, (1, 1))(x))
        return nn.Conv(K, (3, 2), padding=self.padding)(x)


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
def test_a_convolution_is_folded_where_every_entry_meets_the_whole_window(padding, rng):
    x = jax.device_put(rng.normal(size=(2, 5, 4, 3)).astype(np.float32))
    fn = Convolved(padding).apply
    variables = fill(jax.eval_shape(Convolved(padding).init, jax.random.key(0), x), rng)
    if padding == "VALID":
        assert_folds(fn, variables, x, numbers=[0.5])
    else:
        assert_inexact(fn, variables, x, why="0.5, and no bias can take it")


def test_a_kernel_with_two_contracted_axes(rng):
    class Heads(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.sigmoid(nn.DenseGeneral((4, N), name="into")(x))
            return nn.DenseGeneral(K, axis=(-2, -1), name="out")(x)

    x = jax.device_put(rng.normal(size=(2, M)).astype(np.float32))
    fn, variables = Heads().apply, fill(jax.eval_shape(Heads().init, jax.random.key(0), x), rng)
    graph = reg.trace_channels(fn, variables, x)
    assert sorted(graph.widths.values()) == [4, N]
    assert all(group.folds[0].number == 0.5 for group in graph.groups.values())
    alive = {n: np.arange(w) % 3 != 1 for n, w in graph.widths.items()}  # both at once
    arch = morph.shrink(graph, alive, fold=True)
    folded = graph.fold(variables, alive)
    expected = fn(graph.mask(variables, alive), x)
    np.testing.assert_allclose(fn(folded, x), expected, rtol=1e-5, atol=1e-5)
    small = morph.compact(fn, arch)(arch.take(folded), x)
    np.testing.assert_allclose(small, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.promotes
def test_bfloat16(v, x):
    def fn(v, x):
        return jax.nn.sigmoid(x @ v["a"]) @ v["b"] + v["bias"].reshape(1, K)

    v = {k: leaf.astype(jnp.bfloat16) for k, leaf in of(v, "a", "b", "bias").items()}
    half = float(jnp.finfo(jnp.bfloat16).eps)  # one rounding of the folded bias
    assert_folds(fn, v, x.astype(jnp.bfloat16), numbers=[0.5], tolerance=4 * half)
    folded = reg.trace_channels(fn, v, x.astype(jnp.bfloat16)).fold(v, {"a": KEEP})
    assert {str(leaf.dtype) for leaf in folded.values()} == {"bfloat16"}


# Numbers that no bias can take


def shared_kernel(v, x):
    h = x @ v["a"]
    return jax.nn.sigmoid(h) @ v["b"] + v["bias"][None] + jnp.sin(h) @ v["b"]


def shared_bias(v, x):
    return (jax.nn.sigmoid(x @ v["a"]) @ v["b"] + v["bias"][None]) * jnp.tanh(v["bias"])[None]


def other_numbers(v, x):
    h = x @ v["a"]
    first = jax.nn.sigmoid(h) @ v["b"] + v["bias"][None]
    return first * (jnp.cos(h) @ v["b"] + v["bias"][None])


@pytest.mark.parametrize("fn", [shared_kernel, shared_bias, other_numbers])
def test_what_is_shared_is_not_folded(fn, v, x):
    assert_inexact(fn, of(v, "a", "b", "bias"), x, why="0.5, and the bias is not its own")


def without_bias(v, x):
    return jax.nn.sigmoid(x @ v["a"]) @ v["b"]


def bias_of_inputs(v, x):
    return jax.nn.sigmoid(x @ v["a"]) @ v["b"] + x[:, :K]


def used_before_the_bias(v, x):
    y = jax.nn.sigmoid(x @ v["a"]) @ v["b"]
    return y * y + v["bias"][None]


def scaled_kernel(v, x):
    return jax.nn.sigmoid(x @ v["a"]) @ (2.0 * v["b"]) + v["bias"][None]


@pytest.mark.parametrize("fn", [without_bias, bias_of_inputs, used_before_the_bias, scaled_kernel])
def test_a_number_without_a_bias_is_inexact(fn, v, x):
    assert_inexact(fn, of(v, "a", "b", "bias"), x, why="0.5, and no bias can take it")


def test_an_inexact_group_shrinks_only_when_asked_and_then_changes_the_function(v, x):
    v = of(v, "a", "b")
    graph = reg.trace_channels(without_bias, v, x)
    arch = morph.shrink(graph, {"a": KEEP}, inexact=True)
    masked = graph.mask(v, {"a": KEEP})
    small = morph.compact(without_bias, arch)(arch.take(masked), x)
    lost = 0.5 * v["b"][~KEEP].sum(0, keepdims=True)
    np.testing.assert_allclose(small + lost, without_bias(masked, x), rtol=1e-5, atol=1e-5)


# What is not finite


@pytest.mark.parametrize(
    "act",
    [lambda h: 1.0 / h, jnp.log, lax.rsqrt, lambda h: h / h, lambda h: h**-2],
    ids=["inverse", "log", "rsqrt", "0/0", "power"],
)
def test_what_is_not_finite_is_never_exact(act, v, x):
    def into_a_kernel(v, x):
        return jnp.tanh(act(x @ v["a"])) @ v["b"]

    def into_a_sum(v, x):
        h = x @ v["a"]
        return act(h).sum(1), h @ v["b"]

    for fn in (into_a_kernel, into_a_sum):
        graph = reg.trace_channels(fn, of(v, "a", "b"), x)
        assert not graph.groups["a"].exact
        assert "not even finite" in graph.groups["a"].why_inexact


# What is all alike


def test_rows_of_a_kernel_become_producers_where_they_silence_a_group(v, x):
    """Heads of grouped queries: a dead query head still holds values of a living key head."""

    class Grouped(nn.Module):
        @nn.compact
        def __call__(self, x):
            q = nn.DenseGeneral((2, 3, 5), name="q")(x)  # 3 query heads for each of 2 key heads
            k = nn.DenseGeneral((2, 5), name="k")(x)
            value = nn.DenseGeneral((2, 5), name="v")(x)
            a = jax.nn.softmax(jnp.einsum("tgqd,sgd->gqts", q, k))
            return nn.DenseGeneral(K, axis=(-3, -2, -1), name="out")(
                jnp.einsum("gqts,sgd->tgqd", a, value)
            )

    rng = np.random.default_rng(0)
    variables = fill(jax.eval_shape(Grouped().init, jax.random.key(0), x), rng)
    graph = reg.trace_channels(Grouped().apply, variables, x)
    (heads,) = (name for name, width in graph.widths.items() if width == 3)
    assert graph.groups[heads].exact
    out = graph.variables["params/out/kernel"]
    assert out.axes[1] == heads
    assert 1 in out.produces & out.consumes
    found = compare(Grouped().apply, variables, x)
    assert found.resized == found.groups == 4
    assert found.values < 1e-5
    assert found.gradients < 1e-5


@pytest.mark.parametrize(
    "total",
    [
        lambda h: h.var(1),
        lambda h: h.var(1, ddof=1),
        lambda h: jnp.cos(h).sum(1),
        lambda h: jnp.square(h - h.mean(1, keepdims=True)).sum(1),
        lambda h: jnp.abs(h.T - h.mean(1)[None]).sum(0),
        lambda h: jnp.exp(h[:, None, :] - h.max(0)[None, None]).sum((1, 2)),
        lambda h: (h >= 0.0).astype(h.dtype).sum(1),
    ],
    ids=["var", "ddof", "cos", "square", "transposed", "two axes", "count"],
)
def test_a_sum_gets_back_what_it_lacks(total, v, x):
    def fn(v, x):
        h = x @ v["a"]
        return total(h), h @ v["b"]

    found = compare(fn, of(v, "a", "b"), x)
    assert (found.resized, found.exact) == (1, 1)
    assert found.values < 1e-5
    assert found.gradients < 1e-5


@pytest.mark.parametrize(
    "total",
    [
        lambda h: (jnp.cos(h) * jnp.arange(N, dtype=h.dtype)[None]).sum(1),
        lambda h: jnp.square(jnp.cumsum(jnp.cos(h), 0)).sum(1),
        lambda h: jnp.cos(h[:, :, None] + h[:, None, :]).sum((1, 2)),
    ],
    ids=["positions", "cumulated", "the group twice"],
)
def test_a_sum_over_what_is_not_alike_is_inexact(total, v, x):
    def fn(v, x):
        h = x @ v["a"]
        return total(h), h @ v["b"]

    graph = reg.trace_channels(fn, of(v, "a", "b"), x)
    assert not graph.groups["a"].exact
    assert "reduce_sum" in graph.groups["a"].why_inexact


# Standardized kernels: the rows that take a dead channel in are -mean, and stay part of the mean


def by_deviation(w):
    w = w - jnp.mean(w, axis=(0, 1, 2), keepdims=True)
    return w / (jnp.std(w, axis=(0, 1, 2), keepdims=True) + 1e-10)


def by_root(w):
    w = w - jnp.mean(w, axis=(0, 1, 2), keepdims=True)
    return w / jnp.sqrt(jnp.mean(jnp.square(w), axis=(0, 1, 2), keepdims=True) + 1e-10)


@jax.jit
def in_a_call(w):
    w = w - jnp.mean(w, axis=(0, 1, 2)).reshape(1, 1, 1, -1)
    return w * lax.rsqrt(jnp.maximum(jnp.var(w, axis=(0, 1, 2)).reshape(1, 1, 1, -1), 1e-4))


class Standardized(nn.Module):
    """A residual block of standardized convolutions behind group norms."""

    rule: object

    @nn.compact
    def __call__(self, x):
        def conv(x, width, window, name):
            kernel = self.param(
                name, nn.initializers.lecun_normal(), (window, window, x.shape[-1], width)
            )
            return lax.conv_general_dilated(
                x, self.rule(kernel), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )

        x = conv(x, 6, 3, "root")
        y = conv(nn.relu(nn.GroupNorm(2)(x)), 9, 1, "down")
        x = x + conv(nn.relu(nn.GroupNorm(3)(y)), 6, 3, "up")
        return nn.Dense(3)(jnp.tanh(x).mean((1, 2)))


@pytest.mark.parametrize("rule", [by_deviation, by_root, in_a_call])
def test_standardized_convolutions_are_free(rule, rng):
    x = jax.device_put(rng.normal(size=(2, 5, 4, 3)).astype(np.float32))
    model = Standardized(rule)
    found = compare(
        model.apply, fill(jax.eval_shape(model.init, jax.random.key(0), x), rng), x, keep=0.7
    )
    assert found.resized == found.exact == found.groups == 4
    assert found.values < 1e-5
    assert found.gradients < 1e-5


def test_a_group_that_stays_inexact_is_told_how_to_go_all_the_same(v, x):
    graph = reg.trace_channels(without_bias, of(v, "a", "b"), x)
    text = graph.explain("a")
    assert (
        "at the cost of what they hold when dead: morph.shrink(graph, alive, inexact=True)" in text
    )


# Functions made to trick the analysis: what it calls exact is, and it calls these so or not


ROWS = np.asarray([1, 1, 9])  # written twice, and out of bounds


def h_of(v, x):
    return x[:3] @ v["a"]


TRICKS = {
    "added twice and out of bounds": (lambda h, v, x: jnp.zeros((4, N)).at[ROWS].add(h), True),
    "added to the middle of rows": (lambda h, v, x: h.at[ROWS].add(jnp.sin(h)), True),
    "written twice": (lambda h, v, x: jnp.zeros((4, N)).at[ROWS].set(h), True),
    "multiplied": (
        lambda h, v, x: h.at[ROWS + np.arange(3)].multiply(jnp.exp(h), unique_indices=True),
        True,
    ),
    "the largest of a segment": (
        lambda h, v, x: jnp.maximum(jnp.full((4, N), -jnp.inf).at[ROWS].max(h), 0.0),
        True,
    ),
    "added at the channel's own place": (
        lambda h, v, x: jnp.zeros((3, 4)).at[:, np.asarray([0, 3, 3, 1, 9, 2, 0])].add(h),
        True,
    ),
    "ones added at places of channels": (
        lambda h, v, x: jnp.zeros((3, 4)).at[:, np.arange(N) % 4].add(jnp.cos(h)),
        False,
    ),
    "tiled": (lambda h, v, x: jnp.square(jnp.tile(h, (1, 2))).sum(1), True),
    "repeated": (lambda h, v, x: jnp.square(jnp.repeat(h, 2, 1)).sum(1), True),
    "tiled numbers": (lambda h, v, x: jnp.cos(jnp.tile(h, (1, 2))).sum(1), True),
    "by its position": (lambda h, v, x: (h * jnp.arange(1.0, N + 1)[None]).sum(1), True),
    "its position added": (lambda h, v, x: (h + jnp.arange(1.0, N + 1)[None]).sum(1), False),
    "masked by position": (
        lambda h, v, x: jnp.where(jnp.arange(N)[None] < 4, h, 2 * h).sum(1),
        True,
    ),
    "ragged": (lambda h, v, x: jax.lax.ragged_dot(h, v["k"], jnp.asarray([1, 0, 2])), True),
    "stacked": (lambda h, v, x: jnp.cos(jnp.stack([h, h * 2.0], 1)).sum((1, 2)), True),
    "unstacked": (lambda h, v, x: jnp.stack([row.sum() for row in h]), True),
    "updated with ones": (
        lambda h, v, x: lax.dynamic_update_slice(h, jnp.ones((1, N)), (x[0, 0].astype(int), 0)),
        False,
    ),
    "updated with zeros": (
        lambda h, v, x: lax.dynamic_update_slice(
            jnp.zeros((5, N)), h, (x[0, 0].astype(int), 0)
        ).sum(1),
        True,
    ),
    "clipped by data": (lambda h, v, x: jnp.clip(h, x[:3, :1], x[:3, :1] + 1.0), True),
    "a maximum with a negative": (lambda h, v, x: jnp.maximum(h, -0.5), True),
    "a minimum with a negative": (lambda h, v, x: jnp.minimum(h, -0.5), True),
    "softmax over rows": (lambda h, v, x: h * jax.nn.softmax(h, 0), True),
    "softmax over rows alone": (lambda h, v, x: jax.nn.softmax(h, 0), False),
    "noise": (lambda h, v, x: h + jax.random.normal(jax.random.key(0), (3, N)), False),
    "dropout": (
        lambda h, v, x: h * jax.random.bernoulli(jax.random.key(0), 0.5, (3, N)),
        True,
    ),
    "in vmap": (lambda h, v, x: jax.vmap(lambda r: jnp.tanh(r) - jnp.tanh(r).mean())(h), True),
    "a guarded division": (
        lambda h, v, x: jnp.where(h == 0, 0.0, x[:3, :1] / jnp.where(h == 0, 1.0, h)),
        True,
    ),
}


@pytest.mark.parametrize("name", TRICKS)
@pytest.mark.promotes
def test_tricks(name, v, x):
    """What comes out is squared and summed: no kernel can be closed, but numbers are given back."""
    trick, exact = TRICKS[name]

    def fn(v, x):
        h = h_of(v, x)
        out = trick(h, v, x)
        return jnp.square(out).sum(tuple(range(1, out.ndim))), h @ v["b"]

    v = of(v, "a", "b") | ({"k": jnp.stack([v["q"]] * 3)[:, :, :N]} if name == "ragged" else {})
    graph = reg.trace_channels(fn, v, x)
    group = graph.groups["a"]
    assert group.width == N
    assert group.exact == exact
    if exact:
        found = compare(fn, v, x)
        assert found.resized == len(graph.groups)
        assert found.values < 1e-5
        assert found.gradients < 1e-5
