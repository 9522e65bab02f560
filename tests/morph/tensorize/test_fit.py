"""Kernels fitted to what a network answers, against those that know no data."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import morph
import regularizers as reg
from morph.kernels.factorized import is_factorized
from morph.tensorize.fit import RESPONSES, calibrate, matrix
from morph.tensorize.layers import kernels_of

SAMPLES = 257


class Deep(nn.Module):
    """Six layers; biases that follow them, a batch norm's mean, a relu right behind or not."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(9, (2, 3), strides=2)(x))
        x = nn.Conv(12, (1, 1), use_bias=False)(x)
        x = nn.relu6(nn.BatchNorm(use_running_average=True)(x)).reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(24)(x))
        x = nn.relu(nn.Dense(21, use_bias=False)(x))
        return nn.Dense(13)(jnp.tanh(nn.Dense(19)(x)))


@pytest.fixture(scope="module")
def traced():
    """Inputs of few directions, so that answers have fewer than kernels; other ones to test on."""
    model, key = Deep(), jax.random.key(0)
    few = jax.random.normal(key, (2 * SAMPLES, 6))
    mixed = jnp.tanh(few @ jax.random.normal(jax.random.key(1), (6, 60))) + 0.5
    mixed += 0.1 * jax.random.normal(jax.random.key(2), mixed.shape)
    x, unseen = mixed.reshape(2, SAMPLES, 3, 5, 4)
    variables = jax.jit(model.init)(key, x)
    return model, variables, x, unseen, reg.trace_channels(model.apply, variables, x)


def relative(found, expected):
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


ANSWER = jax.jit(morph.tensorized(Deep().apply))  # of dense kernels as of cores


def output_error(traced, plan):
    _, variables, _, unseen, _ = traced
    return relative(ANSWER(plan.factorize(variables), unseen), ANSWER(variables, unseen))


def made(traced, response=None, **how):
    _, variables, x, _, graph = traced
    data = {} if response is None else {"calibration": (x,), "response": response}
    return morph.tensorize_plan(graph, variables, **how, **data)


@pytest.fixture(scope="module")
def plans(traced):
    """All ways to fit at the same ranks."""
    return {way: made(traced, way, kind="svd", rank=4) for way in (None, *RESPONSES)}


def test_what_the_network_answers(traced, plans):
    """Each step of Zhang et al. brings the network nearer, also on samples that were not seen."""
    errors = {way: output_error(traced, plan) for way, plan in plans.items()}
    assert errors["linear"] < 0.8 * errors[None]
    assert errors["asymmetric"] < errors["linear"]
    assert errors["relu"] < errors["asymmetric"]
    assert all(plan.kernels.keys() == plans[None].kernels.keys() for plan in plans.values())


def test_what_every_layer_answers(traced, plans):
    """The best of all kernels of their rank for the original inputs, the SVD's among them."""
    _, variables, x, _, graph = traced
    kernels = {path: kernels_of(graph)[path] for path in plans[None].kernels}
    leaves = dict(zip(graph.variables, jax.tree.leaves(variables), strict=True))
    data = calibrate(graph, leaves, (x,), kernels)
    plain, fitted = (plans[way].factorize(variables)["params"] for way in (None, "linear"))
    for path, told in plans["linear"].responses.items():
        layer, name = data.layers[path], path.split("/")[1]
        blind = layer.error(matrix(plain[name]["kernel"].dense(), layer.roles))
        found = layer.error(matrix(fitted[name]["kernel"].dense(), layer.roles))
        assert found == pytest.approx(told, rel=1e-3)
        assert found < blind
        assert plans["linear"].kernels[path].error > plans[None].kernels[path].error


def test_biases_are_fitted_too(traced, plans):
    _, variables, *_ = traced
    fitted = plans["relu"].factorize(variables)
    same = {
        "/".join(key.key for key in path): np.array_equal(now, was)
        for (path, was), now in zip(
            jax.tree_util.tree_leaves_with_path(variables),
            jax.tree.leaves(fitted, is_leaf=is_factorized),
            strict=True,
        )
        if path[-1].key != "kernel"
    }
    assert {path for path, is_same in same.items() if not is_same} == {
        "batch_stats/BatchNorm_0/mean",
        *(f"params/{name}/bias" for name in ("Conv_0", "Dense_0", "Dense_2", "Dense_3")),
    }


def test_kinds_whose_cores_are_not_fitted(traced):
    """Their ranks are chosen by answers and their biases answer what is missing on average."""
    kind = {"Conv_0": "tucker2", "Dense_0": "tt", "*": "dense"}
    blind, seen = (
        made(traced, way, kind=kind, budget=0.8, cost="size") for way in (None, "linear")
    )
    assert seen.kernels.keys() <= set(seen.responses)
    assert output_error(traced, seen) < output_error(traced, blind)


def test_a_budget_is_spent_by_answers(traced):
    blind, seen = (made(traced, way, kind="svd", budget=0.5) for way in (None, "asymmetric"))
    assert 0.45 * blind.cost[0] < seen.cost[1] <= 0.5 * blind.cost[0]
    assert output_error(traced, seen) < 0.6 * output_error(traced, blind)
    assert "answers" in str(seen)


def test_what_does_less_to_the_outputs_is_cut_first():
    def fn(variables, x):
        return x @ variables["much"] + 0.01 * (x @ variables["little"])

    x = jax.random.normal(jax.random.key(0), (50, 14))
    drawn = jax.random.normal(jax.random.key(1), (14, 14))
    variables = {"little": drawn, "much": drawn.T}
    graph = reg.trace_channels(fn, variables, x)
    plan = morph.tensorize_plan(graph, variables, budget=0.6, calibration=(x,))
    assert plan.kernels["little"].ranks == {"r": 1}
    assert "much" not in plan.kernels


def test_energy_and_error_are_of_the_answers(traced):
    for how in ({"error": 0.2}, {"energy": 0.96}):
        plan = made(traced, "linear", kind="svd", **how)
        assert plan.responses
        assert all(error <= 0.201 for error in plan.responses.values())
        assert max(kernel.error for kernel in plan.kernels.values()) > 0.3


def test_evaluation_chooses(traced):
    _, variables, x, unseen, graph = traced
    expected, losses = ANSWER(variables, unseen), []

    def loss(cores):
        losses.append(relative(ANSWER(cores, unseen), expected))
        return losses[-1] if len(losses) != 2 else float("nan")

    plan = morph.tensorize_plan(
        graph, variables, kind="svd", rank=4, calibration=(x,), evaluate=loss
    )
    assert len(losses) == 4
    assert output_error(traced, plan) == pytest.approx(losses[3])


def test_other_variables_are_decomposed_without_data(traced, plans):
    _, variables, *_ = traced
    other = jax.tree.map(lambda leaf: leaf + 0.0, variables)
    assert jax.tree.all(
        jax.tree.map(np.array_equal, *(plans["relu"].factorize(v) for v in (variables, other)))
    )
    other["params"]["Dense_0"]["bias"] += 1.0
    found = plans["relu"].factorize(other)["params"]["Dense_0"]
    np.testing.assert_array_equal(found["bias"], other["params"]["Dense_0"]["bias"])
    blind = plans[None].factorize(variables)["params"]["Dense_0"]["kernel"]
    np.testing.assert_allclose(found["kernel"].dense(), blind.dense(), atol=1e-5)


def test_shared_kernels_are_fitted_once_and_loops_see_no_data():
    def fn(variables, x):
        x = jnp.tanh(x @ variables["shared"]) @ variables["shared"]
        x, _ = jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, variables["stack"])
        return x @ variables["last"]

    x = jax.random.normal(jax.random.key(0), (40, 12))
    shapes = {"last": (12, 12), "shared": (12, 12), "stack": (2, 12, 12)}
    variables = {
        name: jax.random.normal(jax.random.key(k), shape) / 4
        for k, (name, shape) in enumerate(shapes.items())
    }
    graph = reg.trace_channels(fn, variables, x)
    plan = morph.tensorize_plan(graph, variables, rank=4, calibration=(x,), response="relu")
    assert set(plan.kernels) == {"last", "shared", "stack"}
    assert set(plan.responses) == {"last", "shared"}
    blind = morph.tensorize_plan(graph, variables, rank=4)
    errors = [
        relative(jax.jit(morph.tensorized(fn))(one.factorize(variables), x), fn(variables, x))
        for one in (plan, blind)
    ]
    assert errors[0] < errors[1]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"calibration": ()}, r"with inputs float32\[257, 3, 5, 4\], found none; trace it with"),
        ({"calibration": (np.ones((2, 3, 5, 4)),)}, r"found float32\[2, 3, 5, 4\]"),
        ({"calibration": (np.full((257, 3, 5, 4), np.nan),)}, "NaN or infinite"),
        ({"response": "rule"}, "response 'rule' is none of linear, asymmetric, relu"),
        ({"rank": None, "error": 1.5}, r"error must be .* below 1, found 1.5"),
        ({"rank": None, "energy": 0.0}, r"energy must be .* above 0 and at most 1, found 0.0"),
    ],
)
def test_bad_requests(traced, asked, message):
    _, variables, x, _, graph = traced
    how = {"rank": 4, "kind": "svd", "calibration": (x,), **asked}
    with pytest.raises(ValueError, match=message):
        morph.tensorize_plan(graph, variables, **how)
