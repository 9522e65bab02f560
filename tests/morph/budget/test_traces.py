"""A network is traced once, however often it is asked for."""

from dataclasses import replace

import flax.linen as nn
import jax
import numpy as np
import pytest

import morph
from morph.architecture.architecture import Architecture
from morph.budget import traces as module
from morph.budget.traces import Traces


class Net(nn.Module):
    """Two layers."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(7)(x))
        return nn.Dense(3)(x)


@pytest.fixture
def counted(monkeypatch):
    """How many inputs were traced."""
    calls = []

    def counting(fn, variables, *inputs):
        calls.append(variables)
        return trace(fn, variables, *inputs)

    trace = module.trace_channels
    monkeypatch.setattr(module, "trace_channels", counting)
    return calls


def test_every_architecture_is_traced_once(counted):
    network = morph.linen_network(Net(), train_kwarg=None)
    traces = Traces.of_seed(network, jax.random.key(0), np.zeros((1, 5), np.float32))
    seed = Architecture.of_seed(traces.graph)
    assert traces.of(seed) is traces.graph
    small = morph.shrink(traces.graph, {"Dense_0": np.arange(7) < 4})
    assert traces.of(small).widths == {"Dense_0": 4}
    assert traces.of(replace(small, report={"told": 1})) is traces.of(small)
    assert len(counted) == 2
    other = morph.shrink(traces.graph, {"Dense_0": np.arange(7) > 2})
    traces.of(other)  # as wide, of other channels
    assert len(counted) == 3
