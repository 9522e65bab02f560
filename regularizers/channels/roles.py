"""Which axes of which variables produce a group, and which consume it.

A variable is followed through everything that only rearranges it, acts on it elementwise, or
combines it with other variables. Its axes that a product with an activation contracts *consume*;
all others *produce*. What it first meets also says what kind of member it is: a kernel, a scale, a
shift, a table that is looked up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from regularizers.channels import control
from regularizers.primitives import elementwise, reduction
from regularizers.primitives.jaxprs import Literal, Var, ragged_dot_general_p
from regularizers.primitives.jaxprs import primitives as p
from regularizers.primitives.poles import finite
from regularizers.primitives.record import Record
from regularizers.primitives.signs import NEGATIVE, POSITIVE, ZERO, whole_of
from regularizers.primitives.step import Body, Destinations, Step
from regularizers.primitives.table import RECORDS

Source: TypeAlias = tuple[int, int]  # (variable, axis of it)
Sources: TypeAlias = tuple[frozenset[Source], ...]  # for each axis of a value
NOTHING: frozenset[Source] = frozenset()

SUMS = frozenset({p.add_p, p.add_jaxvals_p, p.sub_p})
SCALES = frozenset({p.mul_p, p.div_p})
REDUCED = frozenset({p.dot_general_p, *reduction.REDUCTIONS})


@dataclass
class Roles:
    """What became of every variable, by its position in the flattened tree."""

    trained: tuple[bool, ...] = ()
    produces: set[Source] = field(default_factory=set)
    consumes: set[Source] = field(default_factory=set)
    reduced: set[Source] = field(default_factory=set)  # summed away before any activation
    kind: dict[int, str] = field(default_factory=dict)  # kernel, scale, shift, table
    order: list[int] = field(default_factory=list)  # variables in the order of first use
    kernels: dict[int, list[int]] = field(default_factory=dict)  # id(step): its kernel variables
    divisors: dict[int, frozenset[Source]] = field(default_factory=dict)  # id(step): what divides


def find_roles(body: Body, trained: Sequence[bool], handed_on: Collection[int] = ()) -> Roles:
    """The roles of the variables, the first inputs of `body`, of which some are trained.

    Args:
        body: the inferred function.
        trained: whether each variable is.
        handed_on: the outputs that are a variable, unread and unchanged, in its own place.
    """
    roles = Roles(trained=tuple(trained))
    variables = len(trained)
    inputs: list[Sources | None] = [
        tuple(frozenset({(i, k)}) for k in range(len(axes))) if i < variables else None
        for i, axes in enumerate(body.inputs)
    ]
    for i, value in enumerate(_walk(body, inputs, roles)):
        if i not in handed_on:  # what reaches an output unused still produces
            _use(roles, value, "table")
    return roles


def _walk(body: Body, inputs: list[Sources | None], roles: Roles) -> list[Sources | None]:
    env: dict[Var, Sources | None] = dict(zip(body.jaxpr.invars, inputs, strict=True))
    env.update((v, _constant(v)) for v in body.jaxpr.constvars)

    def read(v: Var | Literal) -> Sources | None:
        return _constant(v) if isinstance(v, Literal) else env[v]

    for step in body.steps:
        values = [read(v) for v in step.eqn.invars]
        results: list[Sources | None]
        if step.bodies:
            results = _run(step, values, roles)
        elif step.primitive in elementwise.IDENTITIES:
            results = values
        elif step.primitive in elementwise.OBSERVERS:
            results = []
        elif any(value is not None and any(value) for value in values):
            results = _follow(step, values, roles)
        elif any(value is None for value in values):
            results = [None] * len(step.eqn.outvars)
        else:
            results = [_constant(v) for v in step.eqn.outvars]
        env.update(zip(step.eqn.outvars, results, strict=True))
    return [read(v) for v in body.jaxpr.outvars]


def _run(step: Step, values: list[Sources | None], roles: Roles) -> list[Sources | None]:
    """Through a call or control flow; a loop is rehearsed until its carry is known."""

    def join(a: Sources | None, b: Sources | None) -> Sources | None:
        if a is None or b is None:
            _use(roles, a or b, "table")  # from here on it is an activation
            return None
        return a if all(y <= x for x, y in zip(a, b, strict=True)) else _union(a, b)

    def entry(value: Sources | None) -> Sources | None:
        if value is None:
            return None
        # What is stacked are kernels of their own: the axis is neither fan-in nor fan-out.
        roles.produces.update(value[0])
        roles.consumes.update(value[0])
        return value[1:]

    def stack(value: Sources | None, length: int) -> Sources | None:
        del length
        return None if value is None else (NOTHING, *value)

    return control.run(
        step.eqn,
        values,
        lambda i, inputs: _walk(step.bodies[i], inputs, roles),
        control.Domain(join=join, entry=entry, stack=stack),
        rehearse=lambda i, inputs: _walk(step.bodies[i], inputs, Roles(trained=roles.trained)),
    )


def _union(a: Sources, b: Sources) -> Sources:
    return tuple(x | y for x, y in zip(a, b, strict=True))


def _constant(v: Var | Literal) -> Sources:
    """The sources of a value that depends on neither variables nor inputs."""
    return (NOTHING,) * len(getattr(v.aval, "shape", ()))


def _use(
    roles: Roles,
    value: Sources | None,
    kind: str,
    contracted: Collection[int] = (),
    window: Collection[int] = (),
) -> None:
    """Records that `value` meets an activation here."""
    if value is None:
        return
    for k, sources in enumerate(value):
        if k not in window:
            (roles.consumes if k in contracted else roles.produces).update(sources)
    for variable in sorted({i for sources in value for i, _ in sources}):
        if variable not in roles.kind:
            roles.kind[variable] = kind
            roles.order.append(variable)


def _follow(step: Step, values: list[Sources | None], roles: Roles) -> list[Sources | None]:
    """The sources of a step's results; None where a result is not made of variables alone."""
    results = len(step.eqn.outvars)
    to = step.to
    alone = None not in values and all(_variables([value]) for value in values)
    if to is not None and alone and step.primitive in REDUCED:
        roles.kernels[id(step)] = _variables(values[::-1])
        return _reduce(to, values, len(step.results[0]), roles) * results
    record = RECORDS.get(step.primitive)
    if record is not None and record.pole is not finite:
        roles.divisors[id(step)] = _divisors(step, record, values)
    if record is not None and record.contracts and to is not None:
        for value, axes, window in zip(values, to, _windows(step), strict=True):
            summed = [k for k, d in enumerate(axes) if not d]
            _use(roles, value, "kernel", [k for k in summed if k not in window], window)
        for value, stacked in zip(values, _stacked(step), strict=True):
            roles.produces.update(s for k in stacked if value is not None for s in value[k])
        roles.kernels[id(step)] = _variables(values[::-1])
        return [None] * results
    if to is None or None in values or len(_variables(values)) > 1:
        kind = (
            "shift" if step.primitive in SUMS else "scale" if step.primitive in SCALES else "table"
        )
        for i, value in enumerate(values):
            # An axis without destination is indexed: a one-hot product would contract it.
            indexed = [k for k, d in enumerate(to[i]) if not d] if to is not None else ()
            _use(roles, value, kind, indexed)
    if to is None or None in values:
        return [None] * results
    joined = [NOTHING] * len(step.results[0])
    for value, axes in zip(values, to, strict=True):
        for sources, targets in zip(value or (), axes, strict=True):
            for k in targets:
                joined[k] |= sources
    return [tuple(joined)] * results


def _divisors(step: Step, record: Record, values: list[Sources | None]) -> frozenset[Source]:
    """The axes of variables that the operands are made of which must not be zero."""
    found: set[Source] = set()
    n = len(values)
    for i, value in enumerate(values):
        signs = [ZERO if j == i else NEGATIVE | POSITIVE for j in range(n)]
        if value is not None and record.pole(whole_of(step.eqn, signs)):
            found.update(*value)
    return frozenset(found)


def _reduce(
    to: Destinations, values: list[Sources | None], rank: int, roles: Roles
) -> list[Sources | None]:
    """A sum or product of variables alone: what is left is followed on.

    One of the variables whose axis is summed away must be zero there, so that it produces: the
    first that is trained. (A normalised kernel depends on its dead slices.)
    """
    joined = [NOTHING] * rank
    trained = [any(roles.trained[i] for i in _variables([value])) for value in values]
    producer = trained.index(True) if True in trained else 0
    for n, (value, axes) in enumerate(zip(values, to, strict=True)):
        for sources, targets in zip(value or (), axes, strict=True):
            if not targets:
                (roles.reduced if n == producer else roles.consumes).update(sources)
            for k in targets:
                joined[k] |= sources
    if len(values) > 1:
        for variable in _variables(values):
            roles.kind.setdefault(variable, "kernel")
            roles.order += [variable] if variable not in roles.order else []
    return [tuple(joined)]


def _windows(step: Step) -> list[tuple[int, ...]]:
    """The spatial axes of the operands of a convolution, which neither produce nor consume."""
    if step.primitive is not p.conv_general_dilated_p:
        return [()] * len(step.operands)
    numbers = step.eqn.params["dimension_numbers"]
    return [tuple(numbers.lhs_spec[2:]), tuple(numbers.rhs_spec[2:])]


def _stacked(step: Step) -> list[tuple[int, ...]]:
    """The axes of operands that stack kernels of their own, which are not fan-in either."""
    if step.primitive is not ragged_dot_general_p:
        return [()] * len(step.operands)
    groups = step.eqn.params["ragged_dot_dimension_numbers"].rhs_group_dimensions
    return [(), tuple(groups), *([()] * (len(step.operands) - 2))]


def _variables(values: Iterable[Sources | None]) -> list[int]:
    """The variables that `values` are made of, those of the first value first."""
    found = [i for value in values if value for sources in value for i, _ in sorted(sources)]
    return list(dict.fromkeys(found))
