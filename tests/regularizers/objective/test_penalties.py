import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import regularizers as reg
from regularizers.objective.combinations import COMBINATIONS
from regularizers.objective.norms import rms
from regularizers.objective.penalties import PENALTIES
from regularizers.objective.penalty import Source, channel_of
from regularizers.primitives.axes import Product, Sum

MEMBERS = [
    np.array([0.1, 0.3, 0.6, 0.2], np.float32),
    np.array([0.2, 0.4, 0.5, 0.1], np.float32),
    np.array([0.3, 0.2, 0.0, 0.25], np.float32),
]


class ConvNet(nn.Module):
    """conv-BN-relu, conv-relu without a norm, dense."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(6, (3, 3), use_bias=False, name="normed")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="norm")(x))
        x = nn.relu(nn.Conv(5, (3, 3), name="bare")(x))
        return nn.Dense(3, name="head")(x.mean(axis=(1, 2)))


class Residual(nn.Module):
    """One stream made by two layers; `both` says whether each of them is normalised."""

    both: bool

    @nn.compact
    def __call__(self, x):
        def norm(name):
            return nn.BatchNorm(use_running_average=True, name=name)

        x = norm("norm_0")(nn.Conv(6, (1, 1), use_bias=False, name="stem")(x))
        y = nn.Conv(6, (3, 3), use_bias=False, name="branch")(nn.relu(x))
        y = norm("norm_1")(y) if self.both else y
        return nn.Dense(3, name="head")(nn.relu(x + y).mean(axis=(1, 2)))


def traced(model, shape):
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    return reg.trace_channels(model.apply, variables, x)


def measured(strength):
    return [source.path for source in strength.measured]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("max", [0.3, 0.4, 0.6, 0.25]),
        ("l2", [0.374165, 0.538516, 0.781024, 0.335410]),
        ("any", [0.496, 0.664, 0.8, 0.46]),
    ],
)
def test_members_combine(name, expected):
    combine = COMBINATIONS[name]
    np.testing.assert_allclose(combine(list(map(jnp.asarray, MEMBERS))), expected, atol=1e-6)
    np.testing.assert_allclose(combine([jnp.asarray(MEMBERS[0])]), MEMBERS[0], rtol=1e-6)


@pytest.mark.parametrize("name", COMBINATIONS)
def test_gradients_of_combinations_are_finite_at_zero(name):
    zeros = [jnp.zeros(3), jnp.zeros(3)]
    gradient = jax.grad(lambda members: COMBINATIONS[name](members).sum())(zeros)
    assert np.all(np.isfinite(gradient))


def test_group_lasso_is_the_root_mean_square_over_the_fan_in():
    kernel = jnp.arange(24.0).reshape(6, 4)
    expected = [12.110601, 12.948616, 13.808210, 14.685594]
    np.testing.assert_allclose(rms(kernel, 1), expected, rtol=1e-6)
    np.testing.assert_allclose(rms(kernel.T, 0), expected, rtol=1e-6)
    np.testing.assert_allclose(rms(kernel.reshape(2, 3, 4), 2), expected, rtol=1e-6)
    np.testing.assert_allclose(rms(jnp.array([-3.0, 0.0, 5.0]), 0), [3.0, 0.0, 5.0])


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_l1_share_mixes_in_the_mean_of_magnitudes(share):
    kernel = jnp.array([[3.0, -1.0, 0.0], [-4.0, 1.0, 0.0]])
    by_hand = [
        (1 - share) * (12.5**0.5) + share * 3.5,
        (1 - share) * 1.0 + share * 1.0,
        0.0,
    ]
    np.testing.assert_allclose(rms(kernel, 1, l1_share=share), by_hand, rtol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_gradient_is_zero_at_a_channel_of_zeros(share):
    kernel = jnp.array([[3.0, 0.0], [4.0, 0.0]])
    gradient = jax.grad(lambda k: rms(k, 1, l1_share=share).sum())(kernel)
    root = 12.5**0.5
    by_hand = (1 - share) * np.array([3.0, 4.0]) / (2 * root) + share * 0.5
    np.testing.assert_allclose(gradient[:, 0], by_hand, rtol=1e-6)
    if share == 0.0:
        np.testing.assert_array_equal(gradient[:, 1], 0.0)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_does_not_overflow(dtype):
    kernel = jnp.full((5, 7), 6e4, dtype)  # the square is far above float16's 65504
    strength, gradient = jax.value_and_grad(lambda k: rms(k, 1).sum())(kernel)
    assert rms(kernel, 1).dtype == jnp.float32
    np.testing.assert_allclose(strength, 7 * float(kernel[0, 0]), rtol=1e-6)
    assert gradient.dtype == dtype
    np.testing.assert_allclose(np.asarray(gradient, np.float32), 0.2, rtol=1e-2)


def test_half_precision_does_not_underflow():
    kernel = jnp.full((5, 7), 1e-4, jnp.float16)  # the square is below float16's smallest number
    np.testing.assert_allclose(rms(kernel, 1), float(kernel[0, 0]), rtol=1e-6)


def test_channels_of_concatenated_and_merged_axes():
    axis = Sum((2, Product((3, "a")), "b"))
    widths = {"a": 2, "b": 3}
    np.testing.assert_array_equal(
        channel_of(axis, "a", widths), [-1, -1, 0, 1, 0, 1, 0, 1, -1, -1, -1]
    )
    np.testing.assert_array_equal(channel_of(axis, "b", widths), [-1] * 8 + [0, 1, 2])
    np.testing.assert_array_equal(channel_of(Product(("b", 2)), "b", widths), [0, 0, 1, 1, 2, 2])


def test_positions_of_other_groups_do_not_count():
    source = Source(path="w", axis=1, shape=(2, 5), norm=rms, channel=np.array([-1, 0, 1, 0, 1]))
    leaf = jnp.array([[9.0, 1.0, 2.0, 3.0, 4.0], [9.0, 1.0, 2.0, 3.0, 4.0]])
    by_hand = [((1 + 9) / 2) ** 0.5, ((4 + 16) / 2) ** 0.5]
    np.testing.assert_allclose(source.strength(leaf, 2), by_hand, rtol=1e-6)
    gradient = jax.grad(lambda w: source.strength(w, 2).sum())(jnp.zeros_like(leaf))
    np.testing.assert_array_equal(gradient, 0.0)


def test_attention_heads_and_head_widths_by_hand():
    heads, head_width, d, t = 3, 4, 5, 7
    axes = (heads, head_width)

    def fn(variables, x):
        q, k, v = (
            (x @ variables[name]).reshape(t, *axes) for name in ("query", "key", "value")
        )  # [t, h, f]
        weights = jax.nn.softmax(jnp.einsum("thf,shf->hts", q, k))
        return jnp.einsum("hts,shf->thf", weights, v).reshape(t, -1) @ variables["out"]

    variables = {
        name: jax.random.normal(jax.random.key(i), (d, heads * head_width))
        for i, name in enumerate(("query", "key", "value"))
    }
    variables["out"] = jax.random.normal(jax.random.key(3), (heads * head_width, 2))
    graph = reg.trace_channels(fn, variables, jnp.zeros((t, d)))
    by_width = sorted((group.width, name) for name, group in graph.groups.items())
    assert [width for width, _ in by_width] == [heads, head_width, head_width]
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph), inexact=True)
    strengths = regularizer.strengths(variables)

    def root_mean_square(names, axis):
        kernels = [np.asarray(variables[name]).reshape(d, *axes) for name in names]
        others = tuple(k for k in range(3) if k != axis)
        return np.max([np.sqrt(np.mean(k**2, axis=others)) for k in kernels], axis=0)

    expected = {
        frozenset({"query", "key", "value"}): root_mean_square(("query", "key", "value"), 1),
        frozenset({"query", "key"}): root_mean_square(("query", "key"), 2),
        frozenset({"value"}): root_mean_square(("value",), 2),
    }
    for name, group in graph.groups.items():
        makers = frozenset(member.path for member in group.members if member.produces)
        np.testing.assert_allclose(strengths[name], expected.pop(makers), rtol=1e-6)
    assert not expected


def test_group_lasso_measures_every_producer():
    graph = traced(ConvNet(), (2, 5, 7, 3))
    lasso = PENALTIES["group_lasso"](graph, graph.groups["bare"], 0.0)
    assert sorted(measured(lasso)) == ["params/bare/bias", "params/bare/kernel"]
    lasso = PENALTIES["group_lasso"](graph, graph.groups["normed"], 0.0)
    assert sorted(measured(lasso)) == [
        "params/norm/bias",
        "params/norm/scale",
        "params/normed/kernel",
    ]
    assert sorted(lasso.pull.scaled) == sorted(measured(lasso))


def test_gamma_measures_scales_and_pulls_shifts_along():
    graph = traced(ConvNet(), (2, 5, 7, 3))
    gamma = PENALTIES["gamma"](graph, graph.groups["normed"], 0.0)
    assert (gamma.penalty, gamma.width) == ("gamma", 6)
    assert measured(gamma) == ["params/norm/scale"]
    assert sorted(gamma.pull.scaled) == ["params/norm/bias", "params/norm/scale"]


def test_gamma_falls_back_to_group_lasso_without_a_norm():
    graph = traced(ConvNet(), (2, 5, 7, 3))
    group = graph.groups["bare"]
    assert (
        PENALTIES["gamma"](graph, group, 0.5).pull
        == PENALTIES["group_lasso"](graph, group, 0.5).pull
    )


def test_gamma_takes_a_residual_stream_only_where_every_producer_is_normalised():
    both = traced(Residual(both=True), (2, 5, 7, 3))
    gamma = PENALTIES["gamma"](both, both.groups["stem"], 0.0)
    assert gamma.penalty == "gamma"
    assert measured(gamma) == ["params/norm_0/scale", "params/norm_1/scale"]
    one = traced(Residual(both=False), (2, 5, 7, 3))
    lasso = PENALTIES["gamma"](one, one.groups["stem"], 0.0)
    assert lasso.penalty == "group_lasso"
    assert {"params/stem/kernel", "params/branch/kernel"} <= set(measured(lasso))


def test_every_penalty_and_combination_has_a_case():
    assert set(PENALTIES) == {"group_lasso", "gamma", "gates"}
    assert set(COMBINATIONS) == {"max", "l2", "any"}
