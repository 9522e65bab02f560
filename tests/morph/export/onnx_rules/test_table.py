"""One table of rules."""

from morph.export.onnx_rules import control, elementwise, indexing, products, reductions, shapes
from morph.export.onnx_rules.table import AS_IT_IS, MOVES, RULES, TOLD

FILES = (control, elementwise, indexing, products, reductions, shapes)


def test_every_primitive_has_one_rule():
    assert sum(len(file.RULES) for file in FILES) == len(RULES)
    assert all(primitive.name for primitive in RULES)
    assert RULES.keys() >= {*AS_IT_IS, *MOVES, *TOLD}
