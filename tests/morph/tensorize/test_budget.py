"""Ranks for a budget, against trying all; and kernels that gain nothing."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import morph
import regularizers as reg
from morph.kernels.decompose import factorize
from morph.tensorize.graphs import factorized_graph, shell
from morph.tensorize.options import ladder, log_loss

M, N, K = 6, 9, 4


def two_products(v, x):
    return jnp.tanh(x @ v["a"]) @ v["z"]


def convolution(v, x):
    return jax.lax.conv(x, v["k"], (1, 1), "SAME")


@pytest.fixture(scope="module")
def dense():
    rng = np.random.default_rng(0)
    v = {"a": rng.normal(size=(M, N)) * 0.7 ** np.arange(N), "z": rng.normal(size=(N, K))}
    v = {name: leaf.astype(np.float32) for name, leaf in v.items()}
    return v, reg.trace_channels(two_products, v, np.ones((1, M), np.float32))


def ways(v):
    """Cost and loss of all ranks of both kernels; None is dense."""
    sizes = {"a": (M, N), "z": (N, K)}
    found = {}
    for name, (rows, columns) in sizes.items():
        own = {0: (2.0 * rows * columns, 0.0)}
        for rank in range(1, min(rows, columns)):
            error = factorize(v[name], "io", "svd", rank).error
            own[rank] = 2.0 * rank * (rows + columns), log_loss(error)
        found[name] = own
    return found


def test_every_reachable_budget_is_met_with_about_the_least_loss(dense):
    v, graph = dense
    options, total = ways(v), 2.0 * (M * N + N * K)
    pairs = product(options["a"].values(), options["z"].values())
    every = [(cost + more, loss + also) for (cost, loss), (more, also) in pairs]
    for budget in (0.9, 0.75, 0.6, 0.5, 0.4, 0.35):
        most = budget * total
        least = min((loss for cost, loss in every if cost <= most), default=None)
        if least is None:
            assert min(cost for cost, _ in every) > most
            with pytest.raises(morph.BudgetError, match=r"at its smallest ranks the network costs"):
                morph.tensorize_plan(graph, v, kind="svd", budget=budget)
            continue
        plan = morph.tensorize_plan(graph, v, kind="svd", budget=budget)
        ranks = {name: kernel.ranks["r"] for name, kernel in plan.kernels.items()}
        taken = [options[name][ranks.get(name, 0)] for name in options]
        cost, loss = map(sum, zip(*taken, strict=True))
        assert plan.cost == (total, cost)
        assert cost <= most
        assert loss <= least + 0.2


@pytest.mark.parametrize(
    ("kind", "shape", "budget"),
    [("svd", (6, 4), 0.5), ("svd", (9, 2), 0.7), ("cp", (6, 4), 0.5), ("tucker2", (6, 4), 0.5)],
)
def test_narrow_kernels(kind, shape, budget):
    """The first ranks that halve such a kernel are 1."""
    v = {"k": np.random.default_rng(0).normal(size=shape).astype(np.float32)}
    graph = reg.trace_channels(lambda v, x: x @ v["k"], v, jnp.ones((1, shape[0])))
    plan = morph.tensorize_plan(graph, v, kind=kind, budget=budget)
    assert set(plan.kernels["k"].ranks.values()) == {1}


@pytest.mark.parametrize("kind", ["tucker2", "tt"])
def test_a_convolution_of_one_channel(kind):
    """The bond of its input has rank 1, whatever the other is."""
    v = {"k": np.random.default_rng(0).normal(size=(16, 1, 3, 3)).astype(np.float32)}
    graph = reg.trace_channels(convolution, v, jnp.ones((1, 1, 5, 5)))
    plan = morph.tensorize_plan(graph, v, kind=kind, budget=0.6)
    before, after = plan.cost
    step = max(plan.kernels["k"].ranks.values())
    assert 0.6 * before * step / (step + 1) < after <= 0.6 * before


def test_no_larger_rank_fits(dense):
    v, graph = dense
    plan = morph.tensorize_plan(graph, v, kind="svd", budget=0.7)
    before, after = plan.cost
    for name, kernel in plan.kernels.items():
        options, rank = ways(v)[name], kernel.ranks["r"]
        wider = options.get(rank + 1, options[0])  # or dense
        assert after + wider[0] - options[rank][0] > 0.7 * before


def test_given_ranks_never_make_a_network_dearer_without_a_word():
    v = {"k": np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)}
    graph = reg.trace_channels(lambda v, x: x @ v["k"], v, jnp.ones((4, 16)))
    asked = {"kind": "tt", "cores": 2, "energy": 0.7}
    plan = morph.tensorize_plan(graph, v, **asked)
    assert plan.kernels == {}
    assert plan.left["k"].startswith("tt at ranks {'r1': ")
    assert "gains nothing: flops" in plan.left["k"]
    assert plan.left["k"].endswith("; it would in model_size, see cost=")
    small = morph.tensorize_plan(graph, v, **asked, cost="size")
    assert small.cost[1] < small.cost[0] == 256
    assert morph.tensorize_plan(graph, v, **asked, cost="flops").kernels == {}


@pytest.mark.parametrize("budget", [0.95, 0.6])
def test_a_tensor_train_goes_on_until_no_larger_rank_fits(budget):
    """Its orders of contraction change with its ranks; each is priced in its own."""
    v = {"k": np.random.default_rng(0).normal(size=(24, 30)).astype(np.float32)}
    graph = reg.trace_channels(lambda v, x: x @ v["k"], v, jnp.ones((4, 24)))
    plan = morph.tensorize_plan(graph, v, kind="tt", cores=3, budget=budget)
    (kernel,) = plan.kernels.values()
    before, after = plan.cost
    assert after <= budget * before
    steps = ladder(v["k"], "io", "tt", cores=3)
    for ranks in steps.above(kernel.ranks):
        wider = {"k": shell(graph, "k", "io", steps, ranks)}
        assert reg.flops(factorized_graph(graph, wider))() > budget * before
