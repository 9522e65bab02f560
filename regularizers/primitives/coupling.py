"""What a coupling rule is, and the few steps that most rules are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from regularizers.primitives.jaxprs import JaxprEqn, shape_of
from regularizers.primitives.terms import Axes, Solver

Rule: TypeAlias = Callable[..., Sequence[Axes]]


def out_shape(eqn: JaxprEqn, index: int = 0) -> tuple[int, ...]:
    """The seed shape of a result of `eqn`."""
    return shape_of(eqn.outvars[index])


def fixed_axes(solver: Solver, shape: Sequence[int], reason: str) -> Axes:
    """Axes of `shape` that may not change."""
    return tuple(solver.fixed(n, reason) for n in shape)


def pin_everything(solver: Solver, eqn: JaxprEqn, *operands: Axes, reason: str) -> list[Axes]:
    """Pins every axis of every operand and result: always right, never useful."""
    for operand in operands:
        for term in operand:
            solver.pin(term, reason)
    return [fixed_axes(solver, out_shape(eqn, i), reason) for i in range(len(eqn.outvars))]


def together(solver: Solver, operands: Sequence[Axes], shape: Sequence[int]) -> Axes:
    """One shape for all: axes of equal size are the same width.

    An operand of rank 0, or an axis of size 1, broadcasts: it takes no part.
    """
    result = []
    for k, n in enumerate(shape):
        terms = [axes[k] for axes in operands if len(axes) == len(shape) and axes[k].size == n]
        for other in terms[1:]:
            solver.unify(terms[0], other)
        result.append(terms[0] if terms else solver.fresh(n))
    return tuple(result)
