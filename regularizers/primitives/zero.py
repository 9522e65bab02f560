"""Where a result is exactly zero, given where its operands are: the rules that records name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from regularizers.primitives.jaxprs import JaxprEqn
from regularizers.primitives.terms import Atom

Pair: TypeAlias = tuple[int, Atom]  # (axis, group)


@dataclass(frozen=True)
class Broken:
    """The dead slices along an axis are not finite: 1/0, or made from it. Zero does not mend it."""

    pair: Pair


# The pairs whose dead slices are zero, and the `Broken` ones.
Zeros: TypeAlias = frozenset[Pair | Broken]


class Everything(frozenset[Pair | Broken]):
    """The zeros of a value that is zero everywhere: it contains any pair."""

    def __contains__(self, item: object) -> bool:
        return True


class Signed(frozenset[Pair | Broken]):
    """The zeros of a constant of one sign: none that are known. Compare by identity."""


EVERYTHING = Everything()
NOTHING: Zeros = frozenset()
ABOVE = Signed()  # a constant > 0
NOT_BELOW = Signed()  # a constant >= 0
NOT_ABOVE = Signed()  # a constant <= 0


def constant(value: Any) -> Zeros:
    """What is known of a constant; nothing of random keys, truth values and traced values."""
    kind = getattr(value, "dtype", None) or np.asarray(value).dtype
    if isinstance(value, jax.core.Tracer) or not jnp.issubdtype(kind, np.number):
        return NOTHING
    array = np.asarray(value)
    if not np.any(array):
        return EVERYTHING
    if jnp.issubdtype(kind, np.complexfloating):
        return NOTHING
    if np.all(array > 0):
        return ABOVE
    return NOT_BELOW if np.all(array >= 0) else NOT_ABOVE if np.all(array <= 0) else NOTHING


def _is_not_below(zeros: Zeros) -> bool:
    return zeros is NOT_BELOW or zeros is ABOVE


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """One equation seen from the axes of one result."""

    eqn: JaxprEqn
    zeros: list[Zeros]  # per operand, what is zero in it
    carried: list[Zeros]  # per operand, what it carries at all
    pairs: frozenset[Pair]  # all that the result carries
    broken: frozenset[Pair]  # where an operand is not finite


ZeroRule: TypeAlias = Callable[[Meeting], Zeros]


def nothing(m: Meeting) -> Zeros:
    """Nothing is known of the result."""
    del m
    return NOTHING


def all_of(m: Meeting) -> Zeros:
    """f(0, .., 0) = 0: every operand must be zero."""
    if all(zero is EVERYTHING for zero in m.zeros):
        return EVERYTHING
    return frozenset(pair for pair in m.pairs if all(pair in zero for zero in m.zeros))


def any_of(m: Meeting) -> Zeros:
    """A product: one operand that is zero is enough."""
    if any(zero is EVERYTHING for zero in m.zeros):
        return EVERYTHING
    return frozenset(pair for zero in m.zeros for pair in zero)


def first(m: Meeting) -> Zeros:
    """Only the first operand's values appear in the result."""
    return m.zeros[0]


def ratio(m: Meeting) -> Zeros:
    """0/y = 0, but 0/0 never counts as zero."""
    top, bottom = m.zeros
    if bottom is EVERYTHING:
        return NOTHING
    return top if top is EVERYTHING else top - bottom


def integer_power(m: Meeting) -> Zeros:
    """0^y = 0 for y > 0."""
    return m.zeros[0] if m.eqn.params["y"] > 0 else NOTHING


def power(m: Meeting) -> Zeros:
    """0^y = 0 for y > 0, which is known of constants only."""
    base, exponent = m.zeros
    known = exponent is ABOVE and not isinstance(base, Signed)
    return base if known else NOTHING


def select(m: Meeting) -> Zeros:
    """Whatever the predicate, all cases must be zero."""
    cases = m.zeros[1:]
    if all(zero is EVERYTHING for zero in cases):
        return EVERYTHING
    return frozenset(pair for pair in m.pairs if all(pair in zero for zero in cases))


def largest(m: Meeting) -> Zeros:
    """max(0, y) = 0 where y <= 0, which is known of constants only."""
    return _unmoved(m, [zero for zero in m.zeros if zero is not NOT_ABOVE])


def smallest(m: Meeting) -> Zeros:
    """min(0, y) = 0 where y >= 0, which is known of constants only."""
    return _unmoved(m, [zero for zero in m.zeros if not _is_not_below(zero)])


def _unmoved(m: Meeting, zeros: list[Zeros]) -> Zeros:
    if not zeros:
        return NOTHING
    if all(zero is EVERYTHING for zero in zeros):
        return EVERYTHING
    return frozenset(pair for pair in m.pairs if all(pair in zero for zero in zeros))


def clamp(m: Meeting) -> Zeros:
    """clamp(low, 0, high) = 0 where low <= 0 <= high, which is known of constants only."""
    low, x, high = m.zeros
    below = low is EVERYTHING or low is NOT_ABOVE
    known = below and (high is EVERYTHING or _is_not_below(high))
    return x if known and not isinstance(x, Signed) else NOTHING


def convert(m: Meeting) -> Zeros:
    """Zero stays zero; a sign stays unless the new type has none."""
    new, zeros = m.eqn.params["new_dtype"], m.zeros[0]
    if jnp.issubdtype(new, np.unsignedinteger) and isinstance(zeros, Signed):
        return NOTHING
    return zeros if zeros is not ABOVE or jnp.issubdtype(new, np.inexact) else NOT_BELOW


def joined(m: Meeting) -> Zeros:
    """A concatenation: zero on a group where every operand that carries it is."""
    if all(zero is EVERYTHING for zero in m.zeros):
        return EVERYTHING
    operands = list(zip(m.zeros, m.carried, strict=True))
    return frozenset(
        pair for pair in m.pairs if all(pair in zero for zero, has in operands if pair in has)
    )


def looked_up(m: Meeting) -> Zeros:
    """What is read out of bounds is filled; a fill of NaN falls under "values are finite"."""
    fill = m.eqn.params["fill_value"]
    filled = fill is not None and np.isfinite(fill) and fill != 0
    return NOTHING if filled else m.zeros[0]


def pooled(m: Meeting) -> Zeros:
    """A window that sees nothing but padding gives infinity."""
    params = m.eqn.params
    for size, dilation, padding in zip(
        params["window_dimensions"], params["window_dilation"], params["padding"], strict=True
    ):
        if max(padding) > (size - 1) * dilation:
            return NOTHING
    return m.zeros[0]


def written(which: int) -> ZeroRule:
    """The rule of a primitive that writes operand `which` into the first."""

    def rule(m: Meeting) -> Zeros:
        """Zero where both the operand and the updates are; the indices decide only where."""
        operand, updates, carries = m.zeros[0], m.zeros[which], m.carried[which]
        if updates is EVERYTHING and operand is EVERYTHING:
            return EVERYTHING
        return frozenset(
            pair for pair in m.pairs if pair in operand and (pair in updates or pair not in carries)
        )

    return rule


def padded(m: Meeting) -> Zeros:
    """Padding with zero adds zeros; with anything else it may reach dead channels."""
    if m.zeros[1] is not EVERYTHING:
        return NOTHING
    return EVERYTHING if m.zeros[0] is EVERYTHING else m.zeros[0] | (m.pairs - m.carried[0])


PoleRule: TypeAlias = Callable[[Meeting], frozenset[Pair]]


def finite(m: Meeting) -> frozenset[Pair]:
    """Finite wherever operands are."""
    del m
    return frozenset()


def pole_of(operand: int) -> PoleRule:
    """Not finite where this operand is zero."""

    def pole(m: Meeting) -> frozenset[Pair]:
        return frozenset(pair for pair in m.pairs if pair in m.zeros[operand])

    return pole


def integer_power_pole(m: Meeting) -> frozenset[Pair]:
    """0^y is not finite for y < 0."""
    return pole_of(0)(m) if m.eqn.params["y"] < 0 else frozenset()


def power_pole(m: Meeting) -> frozenset[Pair]:
    """0^y may be infinite unless y > 0 is known, as it is of constants."""
    return frozenset() if m.zeros[1] is ABOVE else pole_of(0)(m)
