"""Fixtures of several files here."""

import flax.linen as nn
import jax
import numpy as np
import pytest

import morph
import regularizers as reg


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(6, (3, 3), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True)(x))
        return nn.Dense(3)(x.mean((1, 2)))


@pytest.fixture(scope="module")
def shrunk():
    """A network with an architecture, its small function and variables, and images."""
    module, rng = Net(), np.random.default_rng(0)
    x = rng.normal(size=(5, 7, 5, 1)).astype(np.float32)
    variables = jax.jit(module.init)(jax.random.key(0), x)
    graph = reg.trace_channels(module.apply, variables, x)
    architecture = morph.shrink(graph, {"Conv_0": np.arange(6) % 3 > 0})
    return architecture, morph.compact(module.apply, architecture), architecture.take(variables), x
