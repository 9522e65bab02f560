"""How each primitive couples the widths of its operands and results: one rule per primitive.

A rule is `rule(solver, eqn, *operands) -> results`, where an operand or result is a tuple of terms,
one per axis. `RULES` is the whole table; a primitive that is not in it pins all that it touches.
"""

from __future__ import annotations

from regularizers.channels.coupling import (
    contraction,
    elementwise,
    indexing,
    linear_algebra,
    reduction,
    shape,
)
from regularizers.channels.coupling.rule import Rule
from regularizers.channels.jaxprs import Primitive

RULES: dict[Primitive, Rule] = {
    **elementwise.RULES,
    **shape.RULES,
    **contraction.RULES,
    **reduction.RULES,
    **indexing.RULES,
    **linear_algebra.RULES,
}
