"""A network without a block is priced without it."""

import flax.linen as nn
import jax
import numpy as np
import pytest

import morph
import regularizers as reg
from morph.architecture.architecture import Architecture
from morph.budget.prices import Prices
from morph.budget.traces import Traces


class Net(nn.Module):
    """A stem and a branch that can go, with its norm: 5 to 7 to 3, with 7 to 11 to 7 beside."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(7, use_bias=False, name="stem")(x)
        y = nn.Dense(11, use_bias=False, name="inner")(nn.relu(x))
        y = nn.Dense(7, use_bias=False, name="outer")(nn.relu(y))
        x += nn.BatchNorm(use_running_average=True)(y)
        return nn.Dense(3, use_bias=False, name="head")(nn.relu(x))


@pytest.fixture(scope="module")
def prices():
    network = morph.linen_network(Net(), train_kwarg=None)
    traces = Traces.of_seed(network, jax.random.key(0), np.zeros((1, 5), np.float32))
    return Prices(traces=traces, target=reg.model_size)


def test_all_costs_by_hand(prices):
    seed = Architecture.of_seed(prices.traces.graph)
    size = 5 * 7 + 2 * 7 * 11 + 7 * 3
    assert prices.at(seed)["parameters"] == prices.at(seed)["cost"] == size + 2 * 7
    assert prices.at(seed)["flops"] == 2 * size  # a sum of branches is free


def test_widths_that_are_left(prices):
    arch = morph.shrink(prices.traces.graph, {"inner": np.arange(11) < 4})
    assert prices.at(arch)["cost"] == 5 * 7 + 2 * 7 * 4 + 2 * 7 + 7 * 3


def test_a_removed_block_costs_nothing_and_is_priced_once(prices):
    graph = prices.traces.graph
    (block,) = graph.blocks
    arch = morph.shrink(graph, {}, removed=[block])
    assert prices.at(arch)["cost"] == 5 * 7 + 7 * 3
    assert prices.of(arch) is prices.of(arch)
