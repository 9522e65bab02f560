"""The table of all primitives that are known; one that is not in it pins all that it touches."""

from __future__ import annotations

from regularizers.primitives import (
    contraction,
    elementwise,
    indexing,
    linear_algebra,
    reduction,
    shape,
)
from regularizers.primitives.jaxprs import Primitive
from regularizers.primitives.record import Record

RECORDS: dict[Primitive, Record] = {
    **elementwise.RECORDS,
    **shape.RECORDS,
    **contraction.RECORDS,
    **reduction.RECORDS,
    **indexing.RECORDS,
    **linear_algebra.RECORDS,
}

OWN = frozenset(RECORDS)  # without those that a user adds, by `reg.couples`
