"""A small network that has every kind of axis."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from morph import Architecture, ArchitectureError


class Net(nn.Module):
    """Two concatenated convolutions, batch norm, flatten, two dense layers: every kind of axis."""

    @nn.compact
    def __call__(self, x, train=False):
        x = jnp.concatenate(
            [nn.Conv(5, (3, 1), name="left")(x), nn.Conv(7, (1, 1), name="right")(x)], axis=-1
        )
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="norm")(x))
        x = nn.relu(nn.Dense(6, name="hidden")(x.reshape((x.shape[0], -1))))
        return nn.Dense(3, name="head")(x)


MODEL = Net()
X = jax.random.normal(jax.random.key(1), (2, 2, 3, 4))

ALIVE = {
    "left": np.array([True, False, True, True, False]),
    "right": np.arange(7) % 3 > 0,
    "hidden": np.arange(6) < 4,
}


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def refused(data, message):
    with pytest.raises(ArchitectureError, match=message):
        Architecture.from_json(data)
