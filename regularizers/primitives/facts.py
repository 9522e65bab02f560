"""What is known of values while widths are inferred: their signs, and what is constant.

Some rules need it: a maximum over numbers that cannot be negative leaves widths free, and so does a
gather at constant positions. Nothing here depends on widths.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import numpy as np

from regularizers.primitives.jaxprs import JaxprEqn, Literal, Var, rebind
from regularizers.primitives.jaxprs import primitives as p
from regularizers.primitives.signs import ANY, Sign, SignRule, possible, sign_of, whole_of

Constant: TypeAlias = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Fact:
    """What is known of one value.

    Attributes:
        sign: of its entries.
        constant: evaluates it, where it depends on neither variables nor inputs.
    """

    sign: Sign = ANY
    constant: Constant | None = None

    def join(self, other: Fact) -> Fact:
        """What holds of both; itself where the other adds nothing."""
        if self.sign | other.sign == self.sign and self.constant is None:
            return self
        return Fact(self.sign | other.sign)


def unknown(v: Var | Literal) -> Fact:
    """What is known of a value by its type."""
    return Fact(possible(ANY, v))


def of_constant(value: Any) -> Fact:
    """What is known of a constant of a jaxpr."""
    if isinstance(value, jax.core.Tracer):
        return Fact()
    return Fact(sign_of(value), lambda: value)


def results_of(
    eqn: JaxprEqn, rule: SignRule | None, operands: Sequence[Fact], *, evaluates: bool
) -> list[Fact]:
    """What is known of the results of an equation that runs no jaxprs.

    Args:
        eqn: the equation.
        rule: what signs its results have.
        operands: what is known of its operands.
        evaluates: whether it can be evaluated here and now, as collectives cannot.
    """
    sign = rule(whole_of(eqn, [fact.sign for fact in operands])) if rule else ANY
    signs = [possible(sign, v) for v in eqn.outvars]
    constants = [fact.constant for fact in operands if fact.constant is not None]
    made = operands or eqn.primitive is p.iota_p  # not from a size that nobody knows, or a device
    if not (made and evaluates) or len(constants) < len(operands) or eqn.effects:
        return [Fact(sign) for sign in signs]

    @functools.cache
    def evaluate() -> list[Any]:
        with jax.ensure_compile_time_eval():
            return rebind(eqn, [constant() for constant in constants])

    return [Fact(sign, functools.partial(_at, evaluate, i)) for i, sign in enumerate(signs)]


def _at(evaluate: Callable[[], list[Any]], index: int) -> Any:
    return evaluate()[index]
