"""Fixtures of several files here. A small network that has every kind of axis."""

import json

import jax
import jax.numpy as jnp
import pytest
from every_axis import ALIVE, MODEL, X

import morph
import regularizers as reg


@pytest.fixture(scope="module")
def variables():
    """Every leaf random, so that no channel is zero by accident."""
    shapes = jax.eval_shape(MODEL.init, jax.random.key(0), X)
    leaves, treedef = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    return jax.tree.unflatten(
        treedef,
        [
            jax.random.uniform(k, leaf.shape, minval=0.5, maxval=1.5)
            for k, leaf in zip(keys, leaves, strict=True)
        ],
    )


@pytest.fixture(scope="module")
def graph(variables):
    return reg.trace_channels(MODEL.apply, variables, X)


@pytest.fixture(scope="module")
def chain():
    """4 -> a (6) -> b (5, after exp: inexact) -> c (7) -> 3."""

    def fn(v, x):
        x = jax.nn.relu(x @ v["a"])
        x = jnp.exp(x @ v["b"])
        return jax.nn.relu(x @ v["c"]) @ v["d"]

    sizes = {"a": (4, 6), "b": (6, 5), "c": (5, 7), "d": (7, 3)}
    variables = {name: jnp.ones(shape) for name, shape in sizes.items()}
    graph = reg.trace_channels(fn, variables, jnp.ones((1, 4)))
    exact = {name: group.exact for name, group in graph.groups.items()}
    assert exact == {"a": True, "b": False, "c": True}
    return graph


@pytest.fixture(scope="module")
def shrunk(graph):
    return morph.shrink(graph, ALIVE)


@pytest.fixture
def data(shrunk):
    return json.loads(json.dumps(shrunk.to_json()))
