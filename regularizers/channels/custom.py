"""Rules for primitives of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from regularizers.channels.coupling import RULES
from regularizers.channels.coupling.rule import Rule
from regularizers.channels.exactness import CONSUMERS, ZEROS, all_of, any_of
from regularizers.channels.flow import FLOW, Destinations
from regularizers.channels.inference import Step
from regularizers.channels.jaxprs import RUNS_JAXPRS, Primitive
from regularizers.channels.terms import Solver, atoms
from regularizers.errors import InputError

_ZEROS = {"all": all_of, "any": any_of}


def couples(
    primitive: Primitive, *, zeros: Literal["all", "any"] | None = None
) -> Callable[[Rule], Rule]:
    """Registers how a primitive of your own couples the widths of its operands and results.

    The rule is `rule(solver, eqn, *operands) -> results`; an operand or result is a tuple of terms,
    one per axis. `solver.unify(a, b)` makes two axes the same width, `solver.fresh(n)` is a new
    width, `solver.pin(term, reason)` and `solver.fixed(n, reason)` say that one may not change;
    `eqn.params` holds the parameters and `eqn.outvars[0].aval.shape` the seed's shape.
    `regularizers.channels.coupling` has a rule for each of JAX's own to learn from. If parameters
    hold sizes, tell `morph.emits` how they change.

    Args:
        primitive: a `jax.extend.core.Primitive`.
        zeros: where results are zero: `"all"`, where all operands are (a sum), `"any"`, where one
            operand is (a product), or None, nowhere. Without it every group that meets the
            primitive is reported as inexact if it depends on a zero behind it.

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
    if primitive in RULES or primitive in RUNS_JAXPRS:
        raise InputError(
            f"{primitive.name} has a rule already; a rule is registered once, for a primitive of "
            "your own."
        )
    if zeros not in (None, "all", "any"):
        raise InputError(f"zeros must be 'all', 'any' or None, found {zeros!r}")

    def register(rule: Rule) -> Rule:
        RULES[primitive] = rule
        FLOW[primitive] = _by_terms
        CONSUMERS.add(primitive)
        if zeros:
            ZEROS[primitive] = _ZEROS[zeros]
        return rule

    return register


def _by_terms(step: Step) -> Destinations:
    """An operand's axis is found on every axis of the result that has a width of it.

    The rule is asked again, on new widths: those of the step may have been tied by other steps.
    """
    solver = Solver()
    operands = [tuple(solver.fresh(term.size) for term in axes) for axes in step.operands]
    results = RULES[step.primitive](solver, step.eqn, *operands)
    widths = [frozenset(atoms(term)) for term in results[0]] if results else []
    return [
        [tuple(j for j, own in enumerate(widths) if own & set(atoms(term))) for term in axes]
        for axes in operands
    ]
