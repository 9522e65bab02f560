"""All rules, by primitive; and which types they are given."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from morph.export.onnx_rules import (
    control,
    elementwise,
    indexing,
    products,
    reductions,
    shapes,
)
from morph.export.onnx_rules.graph import Rule
from regularizers.primitives.jaxprs import Primitive

RULES: Mapping[Primitive, Rule] = {
    **control.RULES,
    **elementwise.RULES,
    **indexing.RULES,
    **products.RULES,
    **reductions.RULES,
    **shapes.RULES,
}
"""By primitive: writes nodes, returns the name of the result or of all results."""

AS_IT_IS = frozenset({*control.RULES, *elementwise.NOTHING})
"""They hand everything on."""

MOVES = frozenset(shapes.RULES)
"""They only move numbers, and take these types as they are."""

MOVED = frozenset(map(np.dtype, "?bBilfde"))  # `e`: float16, which ONNX Runtime casts itself

TOLD = frozenset({*elementwise.COMPARED, elementwise.p.convert_element_type_p})
"""Their results are of the type that they should be."""
