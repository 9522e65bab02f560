"""What freeing a fixed width would open, against arithmetic by hand."""

import jax
import jax.numpy as jnp
import pytest

import regularizers as reg
from experiments.inspected_pins import freed


def network(variables, x):  # 6 -> 10 -> 14 -> 3, a softmax over the 10
    x = jax.nn.softmax(x @ variables["a"])
    return jax.nn.relu(x @ variables["b"]) @ variables["c"]


def test_the_dearest_pin_comes_first_and_costs_what_halving_it_would_save():
    shapes = {"a": (6, 10), "b": (10, 14), "c": (14, 3)}
    variables = {name: jnp.ones(shape) for name, shape in shapes.items()}
    graph = reg.trace_channels(network, variables, jnp.ones((1, 6)))
    assert graph.widths == {"b": 14}
    first, *rest = freed(graph, reg.flops(graph), reg.model_size(graph), graph.pins())
    assert first.pin.reason.startswith("a maximum is taken over it")
    # With b at 7: a has 60, b 70, c 21 weights; a and b would lose half.
    weights = sum(a * b for a, b in shapes.values())
    assert first.parameters == pytest.approx((60 + 70) / 2 / weights)
    assert first.flops == pytest.approx((60 + 70) / 2 / weights)
    assert not first.right
    assert {one.pin.reason for one in rest} == {"axis of an input", "axis of an output"}
    assert all(one.right for one in rest)
