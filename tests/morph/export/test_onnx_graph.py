"""What rules write to."""

import jax
import numpy as np
import pytest
from jax import export

from morph.export.onnx_graph import OnnxGraph
from morph.export.onnx_rules.graph import Unsupported

pytest.importorskip("onnx")


@pytest.fixture
def graph():
    (batch,) = export.symbolic_shape("batch")
    return batch, OnnxGraph.of({"x": jax.ShapeDtypeStruct((batch, 3), np.float32)})


def test_small_arrays_are_kept_once(graph):
    _, graph = graph
    assert graph.constant(np.ones(3)) == graph.constant(np.ones(3))
    assert graph.constant(np.ones(3)) != graph.constant(np.ones(3, np.float32))
    np.testing.assert_array_equal(graph.value(graph.constant([2])), [2])


def test_sizes_are_multiples_of_the_batch_and_more(graph):
    batch, graph = graph
    for size in (batch, 5 * batch, batch + 2, 3 * batch - 1):
        assert graph.shape([size, 2])
    with pytest.raises(Unsupported, match=r"a size .* that depends on the batch"):
        graph.shape([batch * batch])
