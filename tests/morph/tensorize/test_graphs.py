"""Channel graphs of factorized networks, and what they and their kernels cost."""

import jax.numpy as jnp
import numpy as np
import pytest

import morph
import regularizers as reg
from morph.tensorize.graphs import by_layer, cost_of, factorized_graph, shares

M, N, K, R = 6, 9, 4, 2


@pytest.fixture
def planned(rng):
    shapes = {"a": (M, N), "z": (N, K)}
    v = {name: {"kernel": rng.normal(size=s).astype(np.float32)} for name, s in shapes.items()}
    graph = reg.trace_channels(
        lambda v, x: jnp.tanh(x @ v["a"]["kernel"]) @ v["z"]["kernel"],
        v,
        np.ones((1, M), np.float32),
    )
    plan = morph.tensorize_plan(graph, v, kind={"a": "svd", "*": "dense"}, rank=R)
    return graph, factorized_graph(graph, plan.kernels)


def test_the_bond_is_a_group_of_the_factorized_graph(planned):
    dense, found = planned
    assert sorted(found.widths.values()) == [R, N]
    assert reg.model_size(found)() == R * (M + N) + N * K
    assert reg.model_size(dense)() == M * N + N * K


def test_what_each_kernel_costs(planned):
    dense, found = planned
    seed, cost = cost_of(dense, "flops"), cost_of(found, reg.flops)
    assert by_layer(seed) == {"a": 2 * M * N, "z": 2 * N * K}
    told = shares(dense, ["a/kernel"], seed, cost)
    assert told == {"a/kernel": (2 * M * N, 2 * R * (M + N))}


def test_a_sum_of_different_units_is_relative_to_the_dense_network(planned):
    dense, found = planned
    seed = cost_of(dense, "flops + size")
    cost = cost_of(found, "flops + size", seed)
    parts = [kind(found)() / kind(dense)() for kind in (reg.flops, reg.model_size)]
    assert seed() == pytest.approx(2.0)
    assert cost() == pytest.approx(sum(parts))
