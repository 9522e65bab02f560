"""What a factorized network and its kernels cost."""

import numpy as np
import pytest

import morph
import regularizers as reg
from morph.tensorize.graphs import by_layer, cost_of, factorized_graph, shares

M, N, K, R = 6, 9, 4, 2


@pytest.fixture(scope="module")
def factorized():
    """Two products, of which the first is factorized."""
    v = {"first": {"kernel": np.ones((M, N), "f")}, "last": {"kernel": np.ones((N, K), "f")}}

    def fn(v, x):
        return (x @ v["first"]["kernel"]) @ v["last"]["kernel"]

    graph = reg.trace_channels(fn, v, np.ones((1, M), np.float32))
    plan = morph.tensorize_plan(graph, v, kind={"first": "svd", "*": "dense"}, rank=R)
    return graph, plan, factorized_graph(graph, plan.kernels)


def test_the_bonds_are_groups(factorized):
    _, _, after = factorized
    assert after.widths["first/kernel/in"] == R
    assert reg.model_size(after)() == R * (M + N) + N * K


def test_shares_of_kernels(factorized):
    graph, plan, after = factorized
    dense, now = reg.flops(graph), reg.flops(after)
    assert shares(graph, plan.kernels, dense, now) == {
        "first/kernel": (2.0 * M * N, 2.0 * R * (M + N))
    }
    assert sum(by_layer(now).values()) == now()


def test_a_sum_of_different_units_is_relative_to_the_dense_network(factorized):
    graph, _, after = factorized

    def both(graph):
        return 0.5 * reg.flops(graph) + 0.5 * reg.model_size(graph)

    seed = cost_of(graph, both)
    ratio = (R * (M + N) + N * K) / (M * N + N * K)
    assert seed() == pytest.approx(1.0)
    assert cost_of(after, both, seed)() == pytest.approx(ratio)
