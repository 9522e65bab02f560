"""The biases that can take what dead slices of one number add to a layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from regularizers.channels.slices import UNKNOWN, Known
from regularizers.primitives.jaxprs import Literal, Var
from regularizers.primitives.jaxprs import primitives as p
from regularizers.primitives.step import Body, Step
from regularizers.primitives.terms import Atom, Term, atoms


@dataclass(frozen=True, kw_only=True)
class Use:
    """A kernel that meets dead slices of one number.

    Attributes:
        group: whose dead channels they are.
        number: what they hold.
        kernel: the variable, by position.
        axis: its axis along which it meets them.
        bias: the variable that is added to the product.
        free: the axes of the kernel that are those of the bias, in order.
    """

    group: Atom
    number: float
    kernel: int
    axis: int
    bias: int
    free: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Pending:
    """A product that meets dead slices of one number, until its bias is found."""

    body: Body
    step: Step
    group: Atom
    number: float
    places: tuple[tuple[int, int], ...]  # (operand, axis)


def bias_use(env: Mapping[Var, Known], pending: Pending) -> Use | None:
    """The kernel and the bias that can take what the dead slices add, if there are."""
    step, places = pending.step, dict(pending.places)
    kernel = _known(env, step.eqn.invars[1]).variable
    free = _free_axes(step)
    if free is None or kernel is None or kernel[1] or len(pending.places) != 2 or 1 not in places:
        return None
    users = [s for s in pending.body.steps if step.eqn.outvars[0] in s.eqn.invars]
    if len(users) != 1 or step.eqn.outvars[0] in pending.body.jaxpr.outvars:
        return None
    (add,) = users
    if add.primitive not in (p.add_p, p.add_jaxvals_p):
        return None
    other = 1 - add.eqn.invars.index(step.eqn.outvars[0])
    bias = _known(env, add.eqn.invars[other]).variable
    own = [_identity(t) for t in add.operands[other] if t.size != 1]
    if bias is None or own != [_identity(step.operands[1][k]) for k in free]:
        return None
    return Use(
        group=pending.group,
        number=pending.number,
        kernel=kernel[0],
        axis=places[1],
        bias=bias[0],
        free=tuple(free),
    )


def _known(env: Mapping[Var, Known], v: Var | Literal) -> Known:
    """What is known of an operand."""
    return UNKNOWN if isinstance(v, Literal) else env[v]


def _identity(term: Term) -> tuple[int, ...]:
    return tuple(map(id, atoms(term)))


def _free_axes(step: Step) -> list[int] | None:
    """The axes of the right operand that are axes of the result; None where entries differ.

    With padding, the entries at the border meet fewer dead slices than the others.
    """
    params = step.eqn.params
    if step.primitive is p.dot_general_p:
        (_, summed), (_, batch) = params["dimension_numbers"]
        return None if batch else [k for k in range(len(step.operands[1])) if k not in summed]
    if step.primitive is not p.conv_general_dilated_p or params["feature_group_count"] != 1:
        return None
    if any(map(any, params["padding"])) or set(params["lhs_dilation"]) - {1}:
        return None
    return [params["dimension_numbers"].rhs_spec[0]]
