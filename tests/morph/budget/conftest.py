"""Fixtures of several files here."""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

import regularizers as reg


class Small(nn.Module):
    """A stem, a residual block with norms, a dense layer without."""

    @nn.compact
    def __call__(self, x):
        norm = functools.partial(nn.BatchNorm, use_running_average=True)
        x = nn.relu(norm()(nn.Conv(24, (3, 3), use_bias=False)(x)))
        y = nn.relu(norm()(nn.Conv(40, (3, 3), use_bias=False)(x)))
        x = nn.relu(x + norm()(nn.Conv(24, (3, 3), use_bias=False)(y)))
        return nn.Dense(3)(nn.relu(nn.Dense(56)(x.mean((1, 2)))))


@pytest.fixture(scope="module")
def small():
    model, x = Small(), jnp.zeros((1, 8, 8, 5))
    variables = jax.jit(model.init)(jax.random.key(0), x)
    return variables, reg.trace_channels(model.apply, variables, x)
