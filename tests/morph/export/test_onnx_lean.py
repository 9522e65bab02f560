"""What a quantizer adds gets short names and is there once; what was there keeps its name."""

import numpy as np
import pytest

from morph.export.onnx_lean import lean

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
from onnx import TensorProto as types  # noqa: E402
from onnx import checker, helper, numpy_helper  # noqa: E402


def model(nodes, arrays):
    given = helper.make_tensor_value_info("0", types.FLOAT, ["n", 3])
    result = helper.make_tensor_value_info("y", types.FLOAT, ["n", 3])
    stored = [numpy_helper.from_array(a, name) for name, a in arrays.items()]
    graph = helper.make_graph(nodes, "g", [given], [result], stored, value_info=[given])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_names_are_short_arrays_are_there_once_and_nodes_in_order():
    one, two = np.ones(3, np.float32), np.full(3, 2, np.float32)
    inner = helper.make_graph(
        [helper.make_node("Add", ["0", "a_long_name"], ["in"])], "b", [],
        [helper.make_tensor_value_info("in", types.FLOAT, None)],
    )  # fmt: skip
    branch = helper.make_node("If", ["truth"], ["y"], name="If", then_branch=inner,
                              else_branch=inner)  # fmt: skip
    truth = helper.make_node("Cast", ["number"], ["truth"], name="Cast", to=types.BOOL)
    old = model([truth, branch], {"number": np.ones((), np.float32), "a_long_name": one})
    changed = [
        branch, truth,
        helper.make_node("Mul", ["another_of_two", "number_scaled"], ["c"], name="more"),
        helper.make_node("Mul", ["number", "two_to_scale_with"], ["number_scaled"], name="new"),
    ]  # fmt: skip
    arrays = {"number": np.ones((), np.float32), "a_long_name": one, "the_same_again": one,
              "two_to_scale_with": two, "another_of_two": two}  # fmt: skip
    made = model(changed, arrays)
    lean(made, old)
    checker.check_model(made)
    assert [node.name for node in made.graph.node] == ["Cast", "If", "", ""]
    assert [array.name for array in made.graph.initializer] == ["number", "a_long_name", "1"]
    assert not made.graph.value_info
    assert [list(node.input) for node in made.graph.node[2:]] == [["number", "1"], ["1", "2"]]
    x = np.zeros((2, 3), np.float32)
    for own in (old, made):
        (found,) = runtime.InferenceSession(own.SerializeToString()).run(None, {"0": x})
        np.testing.assert_array_equal(found, x + 1)
