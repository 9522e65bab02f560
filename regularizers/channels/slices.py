"""What one dead slice holds, and what an equation makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

import jax
import numpy as np

from regularizers.channels import control
from regularizers.primitives import elementwise, jaxprs
from regularizers.primitives.jaxprs import JaxprEqn
from regularizers.primitives.jaxprs import primitives as p
from regularizers.primitives.step import Destinations, Step
from regularizers.primitives.terms import Atom


class Alike(Enum):
    """What a dead slice is where it is no number."""

    ALIKE = "alike"  # all are the same; what, depends on the inputs
    BROKEN = "broken"  # not finite, e.g. 0/0, or made from what is not


ALIKE, BROKEN = Alike.ALIKE, Alike.BROKEN
Pair: TypeAlias = tuple[int, Atom] | None  # (axis, group); None stands for the whole value
Slices: TypeAlias = Mapping[Pair, float | Alike]


@dataclass(frozen=True)
class Known:
    """What is known of a value.

    Attributes:
        slices: what its dead slices hold.
        variable: the variable that it is, by position, and whether its axes were moved.
    """

    slices: Slices = field(default_factory=dict)
    variable: tuple[int, bool] | None = None

    def at(self, pair: Pair) -> float | Alike | None:
        """What the slice holds; None if nothing is known."""
        return self.slices.get(pair, self.slices.get(None))


UNKNOWN = Known()


def numbers(known: Known) -> Known:
    """What is known of a value, less of what is only alike."""
    if ALIKE not in known.slices.values():
        return known
    numbers = {pair: n for pair, n in known.slices.items() if n is not ALIKE}
    return Known(numbers, known.variable)


def _join(a: Known, b: Known) -> Known:
    both = {pair: n for pair, n in a.slices.items() if n is BROKEN or b.at(pair) == n}
    both |= {pair: n for pair, n in b.slices.items() if n is BROKEN}
    variable = a.variable if a.variable == b.variable else None
    same = both == a.slices and variable == a.variable
    return a if same else Known(both, variable)


def _shift(known: Known, by: int) -> Known:
    return Known({
        None if pair is None else (pair[0] + by, pair[1]): n
        for pair, n in known.slices.items()
        if pair is None or pair[0] + by >= 0
    })  # fmt: skip


def _stack(known: Known, length: int) -> Known:
    del length
    return _shift(known, 1)


DOMAIN: control.Domain[Known] = control.Domain(
    join=_join, entry=lambda known: _shift(known, -1), stack=_stack
)

# Through these, `compact` can follow one dead slice.
MOVED = frozenset({p.broadcast_in_dim_p, p.squeeze_p, p.transpose_p})
# A slice of one number stays one, wherever its entries go.
REARRANGED = MOVED | frozenset({
    p.dynamic_slice_p, p.reduce_max_p, p.reduce_min_p, p.reshape_p, p.rev_p, p.slice_p,
    jaxprs.split_p, jaxprs.tile_p, jaxprs.unstack_p,
})  # fmt: skip


def constant(value: Any) -> Known:
    """A scalar is a number; of larger constants nothing is known, but for zeros."""
    kind = getattr(value, "dtype", None) or np.asarray(value).dtype
    if isinstance(value, jax.core.Tracer) or not jax.numpy.issubdtype(kind, np.number):
        return UNKNOWN
    array = np.asarray(value)
    if array.size and np.all(array == array.flat[0]) and np.isreal(array.flat[0]):
        return Known({None: float(array.flat[0].real)})
    return UNKNOWN


def slice_of(
    step: Step,
    pair: Pair,
    before: Sequence[Sequence[frozenset[Atom]]],
    to: Destinations,
    known: Sequence[Known],
) -> float | Alike | None:
    """What the result's slice holds."""
    carried: list[float | Alike | None] = []  # by the operands that carry the group there
    values: list[float | Alike | None] = []
    for groups, targets, fact in zip(before, to, known, strict=True):
        own = [k for k, on in enumerate(groups) if pair and pair[1] in on and pair[0] in targets[k]]
        if own and pair:
            value = next((v for k in own if (v := fact.at((k, pair[1]))) is not None), None)
            carried.append(value)
        else:
            whole = fact.slices.get(None)
            value = None if whole is ALIKE else whole
        values.append(value)
    if BROKEN in values:
        return BROKEN
    if step.primitive in elementwise.RECORDS:
        return _elementwise(step.eqn, carried, values, pair)
    if step.primitive in REARRANGED:
        value = values[0]
        if value is ALIKE and step.primitive not in MOVED:
            return None  # alike still, but more than `compact` follows
        if value is None and pair and not carried and step.primitive is p.broadcast_in_dim_p:
            return ALIKE  # repeated for all channels
        return value
    return None


def _elementwise(
    eqn: JaxprEqn,
    carried: Sequence[float | Alike | None],
    values: Sequence[float | Alike | None],
    pair: Pair,
) -> float | Alike | None:
    if eqn.primitive in elementwise.ANY_ZERO_TO_ZERO and 0.0 in values:
        return 0.0
    if eqn.primitive is p.select_n_p and len(set(values[1:])) == 1 and values[1] is not ALIKE:
        return values[1]
    if eqn.primitive in (p.div_p, p.rem_p) and values[1] == 0.0:
        return BROKEN
    if eqn.primitive is p.pow_p and values[0] == 0.0 and not isinstance(values[1], float):
        return BROKEN
    if all(isinstance(value, float) for value in values):
        number = _evaluate(eqn, [value for value in values if isinstance(value, float)])
        return BROKEN if pair and number is not None and not np.isfinite(number) else number
    if pair is None or None in carried or not carried:
        return None
    return ALIKE


def _evaluate(eqn: JaxprEqn, numbers: Sequence[float]) -> float | None:
    """The primitive on scalars."""
    try:
        with jax.ensure_compile_time_eval():
            scalars = [
                jax.numpy.asarray(n, jaxprs.dtype_of(v))
                for n, v in zip(numbers, eqn.invars, strict=True)
            ]
            (result,) = jaxprs.rebind(eqn, scalars)
            return float(result)
    except (TypeError, ValueError, OverflowError):  # keys, complex numbers, layouts
        return None
