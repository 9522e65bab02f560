"""Which signs the entries of a result may have, given those of the operands: the rules of records.

A `Sign` is the set of signs that entries may have, as bits. `ZERO` alone says that a value is zero,
`POSITIVE` alone that it may be divided by. Values are taken to be finite, so that NaN has no sign
at all, and numbers that are positive not to underflow.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from regularizers.primitives.jaxprs import JaxprEqn, Literal, Var, dtype_of, shape_of

Sign: TypeAlias = int

NEGATIVE, ZERO, POSITIVE = 1, 2, 4  # in the order of numbers
BROKEN = 8  # not finite, e.g. 0/0, or made from what is not
UNREACHED = 16  # zero, but so in the unmasked function, too: what no update of a scatter reaches
NOUGHT = ZERO | UNREACHED
NOT_ABOVE, NOT_BELOW, ANY = NEGATIVE | ZERO, ZERO | POSITIVE, NEGATIVE | ZERO | POSITIVE


def sign_of(value: Any) -> Sign:
    """The signs of a constant; any for random keys and traced values."""
    kind = getattr(value, "dtype", None) or np.asarray(value).dtype
    if isinstance(value, jax.core.Tracer) or not (
        jnp.issubdtype(kind, np.number) or jnp.issubdtype(kind, np.bool_)
    ):
        return ANY
    array = np.asarray(value)
    if jnp.issubdtype(kind, np.complexfloating):
        return ANY if np.any(array) else ZERO
    above, below = array > 0, array < 0
    sign = (NEGATIVE if below.any() else 0) | (POSITIVE if above.any() else 0)
    return sign | (ZERO if (array == 0).any() else 0)


def possible(sign: Sign, v: Var | Literal) -> Sign:
    """The signs that a value of this type can have: complex numbers have none but zero."""
    kind = dtype_of(v)
    sign &= ~UNREACHED if sign & ZERO else ~0
    if kind is None or jnp.issubdtype(kind, jax.dtypes.extended):
        return ANY
    if jnp.issubdtype(kind, np.complexfloating):
        return sign if sign == ZERO else ANY
    if jnp.issubdtype(kind, np.bool_) or jnp.issubdtype(kind, np.unsignedinteger):
        return sign & (NOT_BELOW | UNREACHED)
    return sign


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """One equation, seen from a slice of a result or from the whole of it.

    Attributes:
        eqn: the equation.
        signs: of each operand, there.
        carries: whether that slice is one of the operand, too (else it is all of the operand).
        changed: whether it depends on what was zeroed.
    """

    eqn: JaxprEqn
    signs: Sequence[Sign]
    carries: Sequence[bool]
    changed: Sequence[bool]

    @property
    def is_square(self) -> bool:
        """Whether both operands are one value."""
        a, b = self.eqn.invars
        return isinstance(a, Var) and a is b


def whole_of(eqn: JaxprEqn, signs: Sequence[Sign]) -> Meeting:
    """An equation seen from the whole of a result."""
    n = len(signs)
    return Meeting(eqn=eqn, signs=signs, carries=(True,) * n, changed=(False,) * n)


SignRule: TypeAlias = Callable[[Meeting], Sign]


def _each(sign: Sign) -> Iterator[Sign]:
    """One by one; what was not reached is zero, too."""
    sign |= ZERO if sign & UNREACHED else 0
    return (bit for bit in (NEGATIVE, ZERO, POSITIVE) if sign & bit)


def _some_zero(sign: Sign) -> Sign:
    """With zeros at positions that masking has no part in."""
    return sign if sign == ZERO else sign | UNREACHED


def _union(signs: Sequence[Sign]) -> Sign:
    return functools.reduce(operator.or_, signs, 0)


@functools.cache
def _product(a: Sign, b: Sign) -> Sign:
    def of(x: Sign, y: Sign) -> Sign:
        return ZERO if ZERO in (x, y) else POSITIVE if x == y else NEGATIVE

    return ZERO if ZERO in (a, b) else _union([of(x, y) for x in _each(a) for y in _each(b)])


@functools.cache
def _sum(a: Sign, b: Sign) -> Sign:
    def of(x: Sign, y: Sign) -> Sign:
        return y if x == ZERO else x if y in (ZERO, x) else ANY

    if ZERO in (a, b):
        return b if a == ZERO else a
    return _union([of(x, y) for x in _each(a) for y in _each(b)])


@functools.cache
def _negated(a: Sign) -> Sign:
    turned = {NEGATIVE: POSITIVE, ZERO: ZERO, POSITIVE: NEGATIVE, UNREACHED: UNREACHED}
    return _union([sign for bit, sign in turned.items() if a & bit])


def _rooted(sign: Sign) -> Sign:
    """f(0) = 0, and nothing else is known of f."""
    return ZERO if sign == ZERO else ANY


def anything(m: Meeting) -> Sign:
    """Nothing is known of the result."""
    del m
    return ANY


def not_below(m: Meeting) -> Sign:
    """Counts, truth values."""
    del m
    return NOT_BELOW


def kept(m: Meeting) -> Sign:
    """What moves the first operand, or f with the sign of its argument."""
    return m.signs[0]


def rooted(m: Meeting) -> Sign:
    """f(0) = 0."""
    return _rooted(m.signs[0])


def rounded(m: Meeting) -> Sign:
    """The sign of the argument, or zero."""
    return m.signs[0] | ZERO


def negated(m: Meeting) -> Sign:
    """-x."""
    return _negated(m.signs[0])


def squared(m: Meeting) -> Sign:
    """x^2 and |x|."""
    return _product(m.signs[0], m.signs[0]) & NOT_BELOW


def positive(m: Meeting) -> Sign:
    """exp(x) and its like."""
    del m
    return POSITIVE


def positive_at_zero(*others: Sign) -> SignRule:
    """The rule of f with f(0) > 0, which elsewhere has `others`."""
    elsewhere = _union(others)

    def rule(m: Meeting) -> Sign:
        return POSITIVE if m.signs[0] == ZERO else elsewhere

    return rule


def all_zero(m: Meeting) -> Sign:
    """f(0, .., 0) = 0: every operand must be zero."""
    return _rooted(_union(m.signs))


def any_zero(m: Meeting) -> Sign:
    """f(.., 0, ..) = 0: one operand that is zero is enough."""
    return ZERO if ZERO in m.signs else ANY


def added(m: Meeting) -> Sign:
    """x + y."""
    return _sum(*m.signs)


def subtracted(m: Meeting) -> Sign:
    """x - y."""
    return _sum(m.signs[0], _negated(m.signs[1]))


def multiplied(m: Meeting) -> Sign:
    """x y."""
    return squared(m) if m.is_square else _product(*m.signs)


def divided(m: Meeting) -> Sign:
    """x / y, where y is not zero."""
    top, bottom = m.signs
    return _product(top, bottom & ~NOUGHT) if bottom != ZERO else ANY


def remainder(m: Meeting) -> Sign:
    """0 mod y = 0, where y is not zero."""
    return m.signs[0] | ZERO if m.signs[1] != ZERO else ANY


def integer_power(m: Meeting) -> Sign:
    """x^y for a constant y."""
    y = m.eqn.params["y"]
    if y == 0:
        return POSITIVE
    sign = m.signs[0] if y % 2 else squared(m)
    return sign if y > 0 else sign & ~NOUGHT or ANY


def power(m: Meeting) -> Sign:
    """x^y: 0^y = 0 for y > 0, and 0^0 = 1."""
    base, exponent = m.signs
    sign = ANY if base & NEGATIVE else base & POSITIVE
    if base & NOUGHT:
        sign |= (ZERO if exponent & (NEGATIVE | POSITIVE) else 0) | (
            POSITIVE if exponent & (NEGATIVE | NOUGHT) else 0
        )
    return sign


def larger(m: Meeting) -> Sign:
    """max(x, y)."""
    return _larger(*m.signs)


def smaller(m: Meeting) -> Sign:
    """min(x, y)."""
    return _smaller(*m.signs)


def clamped(m: Meeting) -> Sign:
    """min(max(x, low), high)."""
    low, x, high = m.signs
    return _smaller(_larger(x, low), high)


def _larger(a: Sign, b: Sign) -> Sign:
    return _union([max(x, y) for x in _each(a) for y in _each(b)])


def _smaller(a: Sign, b: Sign) -> Sign:
    return _union([min(x, y) for x in _each(a) for y in _each(b)])


def compared(holds: Callable[[int, int], bool]) -> SignRule:
    """The rule of a comparison: signs decide it where they differ, or both are zero."""

    def rule(m: Meeting) -> Sign:
        if m.is_square:
            return POSITIVE if holds(0, 0) else ZERO
        found = 0
        for x in _each(m.signs[0]):
            for y in _each(m.signs[1]):
                known = x != y or x == ZERO
                found |= (POSITIVE if holds(x, y) else ZERO) if known else NOT_BELOW
        return found

    return rule


def select(m: Meeting) -> Sign:
    """The case that the predicate picks; any of them where it may pick any."""
    which, *cases = m.signs
    if which == ZERO:
        return cases[0]
    return cases[1] if which == POSITIVE and len(cases) == 2 else _union(cases)


def conjunction(m: Meeting) -> Sign:
    """Bitwise `and`."""
    return ZERO if ZERO in m.signs else _truth(m, POSITIVE)


def disjunction(m: Meeting) -> Sign:
    """Bitwise `or`; and `xor`, of which less is known."""
    return ZERO if all(sign == ZERO for sign in m.signs) else _truth(m, 0)


def _truth(m: Meeting, all_of: Sign) -> Sign:
    """Of truth values: true where all are, for `and`."""
    is_bool = dtype_of(m.eqn.outvars[0]) == np.bool_
    return all_of if is_bool and all_of and all(s == all_of for s in m.signs) else ANY


def converted(m: Meeting) -> Sign:
    """Zero stays zero; fractions become zero in an integer."""
    new, (sign,) = m.eqn.params["new_dtype"], m.signs
    if jnp.issubdtype(new, np.bool_):
        return _product(sign, sign)
    if jnp.issubdtype(new, np.unsignedinteger) and sign & NEGATIVE:
        return ANY
    fraction = jnp.issubdtype(dtype_of(m.eqn.invars[0]), np.inexact)
    return sign | ZERO if fraction and not jnp.issubdtype(new, np.inexact) else sign


def summed(m: Meeting) -> Sign:
    """A sum of entries; of none it is zero."""
    return _total(m.signs[0]) | _if_empty(m)


def multiplied_up(m: Meeting) -> Sign:
    """A product of entries; of none it is one."""
    empty = POSITIVE if _if_empty(m) else 0
    return (ANY if m.signs[0] & NEGATIVE else m.signs[0]) | empty


def contracted(m: Meeting) -> Sign:
    """A sum of products; of none it is zero."""
    return _total(_product(m.signs[0], m.signs[1])) | _if_empty(m)


def contracted_in_part(m: Meeting) -> Sign:
    """A sum of products; where only padding is met, or no kernel, it is zero."""
    return _some_zero(contracted(m))


def _total(sign: Sign) -> Sign:
    return ANY if sign & NEGATIVE and sign & POSITIVE else sign


def _if_empty(m: Meeting) -> Sign:
    return ZERO if 0 in shape_of(m.eqn.invars[0]) else 0


def joined(m: Meeting) -> Sign:
    """A concatenation: of the operands that have the slice, and of all where none does."""
    own = [sign for sign, has in zip(m.signs, m.carries, strict=True) if has]
    return _union(own or m.signs)


def looked_up(m: Meeting) -> Sign:
    """What is read out of bounds is filled; a fill of NaN falls under "values are finite"."""
    fill = m.eqn.params["fill_value"]
    return m.signs[0] | (0 if fill is None else sign_of(fill))


def pooled(m: Meeting) -> Sign:
    """A window that sees nothing but padding gives infinity."""
    params = m.eqn.params
    for size, dilation, padding in zip(
        params["window_dimensions"], params["window_dilation"], params["padding"], strict=True
    ):
        if max(padding) > (size - 1) * dilation:
            return ANY
    return m.signs[0]


def window_summed(m: Meeting) -> Sign:
    """A window that sees nothing but padding sums up to zero."""
    return _some_zero(_total(m.signs[0]))


def written(which: int) -> SignRule:
    """The rule of a primitive that writes operand `which` into the first."""

    def rule(m: Meeting) -> Sign:
        """Either the operand's or the updates'; the indices decide only where."""
        return _unreached(m) | m.signs[which] if m.carries[which] else m.signs[0]

    return rule


def added_into(m: Meeting) -> Sign:
    """A scatter that adds: the operand, or with any number of updates on it."""
    return _updated(m, m.signs[2])


def subtracted_from(m: Meeting) -> Sign:
    """A scatter that subtracts."""
    return _updated(m, _negated(m.signs[2]))


def _updated(m: Meeting, updates: Sign) -> Sign:
    total = _total(_sum(m.signs[0], updates))
    if not m.carries[2] or total == ZERO:
        return m.signs[0]
    return _unreached(m) | total


def _unreached(m: Meeting) -> Sign:
    """What is left of the first operand, if anything is written to all of it."""
    return UNREACHED if m.signs[0] == ZERO and not m.changed[0] else m.signs[0]


def padded(m: Meeting) -> Sign:
    """The padding may reach any slice; one that is not the operand's is made of it alone."""
    operand, value = m.signs
    if not m.carries[0]:
        return value
    return _some_zero(operand) if value == ZERO else operand | value
