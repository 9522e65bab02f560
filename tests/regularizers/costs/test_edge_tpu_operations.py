import jax
import jax.numpy as jnp
import pytest

from regularizers.costs.edge_tpu import (
    KINDS,
)
from regularizers.costs.edge_tpu_operations import (
    OPERATIONS,
    PRIMITIVES,
    first_unsupported,
    unsupported,
)


@pytest.mark.parametrize(
    ("kind", "facts", "reason"),
    [
        ("conv", {}, ""),
        ("conv", {"dilation": (3, 3)}, ""),
        ("conv", {"dilation": (1, 2)}, "the same dilation in x and y, found (1, 2)"),
        ("conv", {"groups": 3}, "grouped"),
        ("grouped conv", {}, "grouped"),
        ("depthwise conv", {"groups": 32}, ""),
        ("depthwise conv", {"dilation": (2, 1)}, "DepthwiseConv2d needs the same dilation"),
        ("transposed conv", {}, ""),
        ("dense", {}, ""),
        ("dense", {"rows": 7, "rank": 2}, "one row, found 7"),
        ("product", {}, "BatchMatMul is not mapped (field reports)"),
        ("conv", {"rank": 5}, "rank 5; at most 4"),
        ("elementwise", {"rank": 5, "primitives": ["add"]}, "rank 5"),
        ("concatenate", {}, ""),
        ("resize", {}, ""),
        ("pool", {"primitives": ["reduce_window_max"]}, ""),
        ("pool", {"primitives": ["reduce_window_min"]}, "reduce_window_min"),
        ("reduce", {"primitives": ["reduce_sum"]}, ""),
        ("reduce", {"primitives": ["reduce_sum"], "reduced_channels": 12}, ""),
        ("reduce", {"primitives": ["reduce_sum"], "reduced_channels": 10}, "multiple of 4"),
        ("reduce", {"primitives": ["argmax"]}, "argmax"),
        ("elementwise", {"primitives": ["sub", "rsqrt", "mul", "add", "max"]}, ""),
        ("elementwise", {"primitives": ["sub", "exp", "div"]}, ""),  # of a softmax
        ("elementwise", {"primitives": ["mul", "erf", "mul"]}, "erf becomes no TFLite"),
        ("elementwise", {"primitives": ["logistic", "tanh", "stop_gradient"]}, ""),
        ("elementwise", {"primitives": ["my_primitive"]}, "not in the table of primitives"),
        ("move", {"primitives": ["pad"]}, ""),
        ("move", {"primitives": ["transpose"]}, "transpose"),
        ("sort", {}, "sort becomes no TFLite"),
        ("ragged", {}, "ragged"),
    ],
)
def test_support(kind, facts, reason):
    found = unsupported(kind, **facts)
    assert bool(found) == bool(reason)
    assert reason in found


def test_every_kind_is_in_the_table_of_operations():
    for kind in KINDS:
        assert isinstance(unsupported(kind), str)  # raises no KeyError
    named = {op for op, _ in PRIMITIVES.values() if op}
    assert named <= set(OPERATIONS)
    assert all(OPERATIONS[op].maps for op in named)
    assert len(OPERATIONS) == 40


def test_the_first_layer_that_leaves_the_device():
    fine = ("conv", {})
    assert first_unsupported([fine, ("concatenate", {}), ("dense", {"rows": 1})]) is None
    assert first_unsupported([]) is None
    position, reason = first_unsupported([fine, fine, ("product", {}), ("grouped conv", {})])
    assert position == 2
    assert "BatchMatMul" in reason


def test_primitives_are_jaxs():
    def softmax_gelu(x):
        return jax.nn.softmax(jax.nn.gelu(x, approximate=True)) * jax.lax.rsqrt(x)

    names = {eqn.primitive.name for eqn in jax.make_jaxpr(softmax_gelu)(jnp.ones(5)).jaxpr.eqns}
    assert {"tanh", "exp", "rsqrt", "div"} <= names
    assert names <= set(PRIMITIVES)
