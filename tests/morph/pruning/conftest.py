"""A small network of which it is known what can go: half of one group, and a block."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import regularizers as reg

USELESS = np.arange(12) % 2 == 1  # of the channels of "a"


class Case(NamedTuple):
    fn: object
    variables: object
    graph: object
    cost: object
    batches: list
    loss: object


@pytest.fixture(scope="session")
def case():
    def fn(v, x):
        h = jax.nn.relu(x @ v["stem"])
        h = h + jax.nn.relu(h @ v["useless_in"]) @ v["useless_out"]
        return jax.nn.relu(h @ v["a"]) @ v["b"]

    rng = np.random.default_rng(0)
    shapes = {
        "stem": (5, 8),
        "useless_in": (8, 6),
        "useless_out": (6, 8),
        "a": (8, 12),
        "b": (12, 3),
    }
    v = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    v["b"][USELESS] *= 1e-3
    v["useless_out"] *= 1e-4
    variables = jax.tree.map(jnp.asarray, v)
    x = rng.normal(size=(2, 33, 5)).astype(np.float32)
    batches = [(part, jnp.argmax(fn(variables, part), -1)) for part in map(jnp.asarray, x)]
    graph = reg.trace_channels(fn, variables, x[0])

    def loss(v, batch):
        logits = jax.nn.log_softmax(fn(v, batch[0]))
        return -jnp.take_along_axis(logits, batch[1][:, None], -1).mean()

    return Case(fn, variables, graph, reg.flops(graph), batches, loss)
