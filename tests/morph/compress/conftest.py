"""The network that fixed point is tested on, traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixed_point_case import Net

import regularizers as reg


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(5, 7, 6, 3)), jnp.float32)
    variables = jax.jit(Net().init)(jax.random.key(0), x)
    return Net().apply, variables, x, reg.trace_channels(Net().apply, variables, x)
