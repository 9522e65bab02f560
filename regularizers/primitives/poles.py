"""Where a result is not finite because an operand is, or may be, zero: the rules of records.

Only zeros that masking makes count: a `Meeting` shows no others to these rules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from regularizers.primitives.signs import NEGATIVE, ZERO, Meeting

PoleRule: TypeAlias = Callable[[Meeting], bool]


def finite(m: Meeting) -> bool:
    """Finite wherever operands are."""
    del m
    return False


def pole_of(operand: int) -> PoleRule:
    """Not finite where this operand is zero."""

    def pole(m: Meeting) -> bool:
        return bool(m.signs[operand] & ZERO)

    return pole


def below(operand: int, pole: PoleRule = finite) -> PoleRule:
    """Nor where it is negative for sure: roots and logarithms."""
    return lambda m: m.signs[operand] == NEGATIVE or pole(m)


def inverse_cosine_pole(m: Meeting) -> bool:
    """acosh(x) is a number for x >= 1, which no sign tells."""
    return bool(m.signs[0] & (NEGATIVE | ZERO)) and any(m.changed)


def beyond_one(m: Meeting) -> bool:
    """atanh(x) and its like are numbers for |x| < 1, which only a zero tells."""
    return m.signs[0] != ZERO and m.changed[0]


def below_minus_one(m: Meeting) -> bool:
    """log(1 + x) is a number for x > -1, which only a sign above tells."""
    return bool(m.signs[0] & NEGATIVE) and m.changed[0]


def integer_power_pole(m: Meeting) -> bool:
    """0^y is not finite for y < 0."""
    return m.eqn.params["y"] < 0 and bool(m.signs[0] & ZERO)


def power_pole(m: Meeting) -> bool:
    """0^y is infinite for y < 0."""
    return bool(m.signs[0] & ZERO and m.signs[1] & NEGATIVE)
