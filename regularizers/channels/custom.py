"""Rules for primitives of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from regularizers.checks import FUNCTION, a, checked
from regularizers.errors import InputError
from regularizers.primitives.coupling import Rule
from regularizers.primitives.jaxprs import RUNS_JAXPRS, Primitive
from regularizers.primitives.record import Factors, Price, Record, again
from regularizers.primitives.signs import all_zero, any_zero, anything
from regularizers.primitives.step import Operation
from regularizers.primitives.table import RECORDS

_ZEROS = {"all": all_zero, "any": any_zero, None: anything}


@checked(primitive=a(Primitive, "a jax.extend.core.Primitive"), price=FUNCTION)
def couples(
    primitive: Primitive,
    *,
    zeros: Literal["all", "any"] | None = None,
    price: Callable[[Operation], Factors] | None = None,
) -> Callable[[Rule], Rule]:
    """Registers how a primitive of your own couples the widths of its operands and results.

    The rule is `rule(solver, eqn, *operands) -> results`; an operand or result is a tuple of terms,
    one per axis. `solver.unify(a, b)` makes two axes the same width, `solver.fresh(n)` is a new
    width, `solver.pin(term, reason)` and `solver.fixed(n, reason)` say that one may not change;
    `eqn.params` holds the parameters and `eqn.outvars[0].aval.shape` the seed's shape.
    `regularizers/primitives/` has a record for each of JAX's own to learn from. If parameters
    hold sizes, tell `morph.emits` how they change.

    Args:
        primitive: a `jax.extend.core.Primitive`.
        zeros: where results are zero: `"all"`, where all operands are (a sum), `"any"`, where one
            operand is (a product), or None, nowhere. Without it every group that meets the
            primitive is reported as inexact if it depends on a zero behind it.
        price: of a product or its like: the axes whose sizes, multiplied, are its multiply-adds,
            from `operation.lhs`, `.rhs`, `.out` and `.params`. A product without a price is named
            where costs are shown.

    Returns:
        A decorator that returns the rule as it is.

    Raises:
        ValueError: if the primitive has a rule already.

    Example:
        >>> from jax.extend.core import Primitive
        >>> swish_p = Primitive("swish")
        >>> @couples(swish_p, zeros="all")
        ... def swish(solver, eqn, x):
        ...     return [x]  # elementwise: the axes of the result are the operand's
    """
    if primitive in RECORDS or primitive in RUNS_JAXPRS:
        raise InputError(
            f"{primitive.name} has a rule already; a rule is registered once, for a primitive of "
            "your own."
        )
    if zeros not in (None, "all", "any"):
        raise InputError(f"zeros must be 'all', 'any' or None, found {zeros!r}")

    def register(rule: Rule) -> Rule:
        RECORDS[primitive] = Record(
            couple=rule,
            sign=_ZEROS[zeros],
            price=None if price is None else Price(factors=price),
            emission=again,
            sums=True,
        )
        return rule

    return register
