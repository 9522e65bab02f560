"""What rules write to."""

import jax
import numpy as np
import pytest
from jax import core, export

from morph.export.onnx_graph import OnnxGraph
from morph.export.onnx_rules.graph import Unsupported

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture
def graph():
    batch, length = export.symbolic_shape("batch, length")
    return batch, length, OnnxGraph.of({"x": jax.ShapeDtypeStruct((batch, length), np.float32)}, ())


def test_small_arrays_are_kept_once(graph):
    *_, graph = graph
    assert graph.constant(np.ones(3)) == graph.constant(np.ones(3))
    assert graph.constant(np.ones(3)) != graph.constant(np.ones(3, np.float32))
    np.testing.assert_array_equal(graph.value(graph.constant([2])), [2])


def test_sizes_are_arithmetic_of_those_of_the_inputs(graph):
    batch, length, graph = graph
    sizes = (5 * batch, 3 * batch - 1, batch * length + 2, length // 2, length % 3)
    sizes += (core.max_dim(batch, length), core.min_dim(3, length))
    shape = graph.node("Identity", graph.shape(sizes), name="y")
    found = graph.model({"x": jax.ShapeDtypeStruct((batch, length), np.float32)},
                        {shape: jax.ShapeDtypeStruct((len(sizes),), np.int64)})  # fmt: skip
    run = onnxruntime.InferenceSession(found.SerializeToString()).run
    (y,) = run(None, {"x": np.ones((2, 7), np.float32)})
    np.testing.assert_array_equal(y, [10, 5, 16, 3, 1, 7, 3])
    (other,) = export.symbolic_shape("other")
    with pytest.raises(Unsupported, match="a size other, which no input has"):
        graph.shape([other])
