"""What the slices of dead channels hold where they are not zero.

`exactness` asks whether a dead channel is zero wherever it is consumed. Where it is not, this pass
looks closer. The slice may be a *number* (sigmoid(0) = 1/2): what it adds to a layer is a constant,
which the layer's bias can take. Or all dead slices of a group may be *alike*, whatever they are
((0 - mean)^2 in a variance): a sum over the group then lacks so many times the same, and `compact`
adds it. Anything else dies with the rows of the kernel that takes it in, which then produce, too
(grouped queries, noise), unless it is not finite. What no kernel takes in makes the group inexact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

import jax
import numpy as np

from regularizers.channels import control, jaxprs
from regularizers.channels.coupling import contraction, elementwise
from regularizers.channels.exactness import (
    CONSUMERS,
    EVERYTHING,
    Broken,
    Exactness,
    Groups,
    not_zero,
)
from regularizers.channels.flow import Destinations, destinations
from regularizers.channels.inference import Body, Step
from regularizers.channels.jaxprs import JaxprEqn, Literal, Var
from regularizers.channels.jaxprs import primitives as p
from regularizers.channels.terms import Atom, Source, Sum, Term, atoms, resolve


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


@dataclass
class Dead:
    """What the pass found.

    Attributes:
        groups: the groups asked for.
        exactness: what is known to be zero.
        reasons: why those that stay inexact are, and the source of the step.
        uses: what biases can take, by group.
        closable: the axes of kernels that meet dead slices that are neither zero nor a number, by
            group: (variable, axis). Zeros there make the group exact.
        pending: products that meet dead slices of one number, by (`id` of the step, group).
        lacking: for each sum, by the `id` of its step, the groups whose dead slices it lacks, and
            their axes.
        known: what is known of the values of each body, by `id`.
        met: in which (step, operand) each variable is used.
        rules: how many functions with a derivative of their own are being walked.
    """

    groups: Groups
    exactness: Exactness
    reasons: dict[Atom, tuple[str, Source]] = field(default_factory=dict)
    uses: dict[Atom, list[Use]] = field(default_factory=dict)
    closable: dict[Atom, set[tuple[int, int]]] = field(default_factory=dict)
    pending: dict[tuple[int, Atom], Pending] = field(default_factory=dict)
    lacking: dict[int, list[tuple[int, Atom]]] = field(default_factory=dict)
    known: dict[int, dict[Var, Known]] = field(default_factory=dict)
    met: dict[int, set[tuple[int, int]]] = field(default_factory=dict)
    rules: int = 0

    def give_up(self, group: Atom, reason: str, source: Source) -> None:
        """Says that a group is inexact; the first reason is kept."""
        self.reasons.setdefault(group, (reason, source))


def find_dead(body: Body, exactness: Exactness, variables: int) -> Dead:
    """What the dead slices of groups that are not exact hold at every step.

    Args:
        body: the inferred function.
        exactness: what `find_inexact` found there.
        variables: how many of its inputs are variables.
    """
    dead = Dead(groups=Groups(exactness.reasons), exactness=exactness)
    inputs = [Known({}, (i, False) if i < variables else None) for i in range(len(body.inputs))]
    for k, output in enumerate(_walk(body, inputs, dead)):
        if output.variable is not None:  # whoever gets a variable must not get it folded
            dead.met.setdefault(output.variable[0], set()).add((id(body), k))
    uses: list[tuple[Use, Pending]] = []
    for pending in dead.pending.values():
        use = _bias_use(dead.known[id(pending.body)], pending)
        if use is None:
            reason = f"{not_zero(pending.step)}, but {pending.number:.6g}, and no bias can take it"
            dead.give_up(pending.group, reason, pending.step.source)
        else:
            uses.append((use, pending))
    for use, pending in uses:
        same = [(u, other) for u, other in uses if u.kernel == use.kernel]
        products = {id(other.step) for _, other in same}
        numbers = {(u.number, u.bias) for u, _ in same if u.group is use.group}
        if len(numbers) > 1 or not (
            len(products) == len(dead.met[use.kernel]) == len(dead.met[use.bias])
        ):
            reason = f"{not_zero(pending.step)}, but {use.number:.6g}, and the bias is not its own"
            dead.give_up(use.group, reason, pending.step.source)
        elif use not in dead.uses.setdefault(use.group, []):
            dead.uses[use.group].append(use)
    return dead


def _walk(body: Body, inputs: Sequence[Known], dead: Dead) -> list[Known]:
    env: dict[Var, Known] = {}
    zeros = dead.exactness.zeros[id(body)]

    def learn(v: Var, known: Known) -> None:
        """What is known to be zero is zero."""
        if zeros.get(v) is EVERYTHING:
            known = Known({None: 0.0}, known.variable)
        elif zeros.get(v):
            slices = dict(known.slices)
            for entry in zeros[v]:
                pair = entry.pair if isinstance(entry, Broken) else entry
                if pair[1] in dead.groups:
                    slices[pair] = BROKEN if isinstance(entry, Broken) else 0.0
            known = Known(slices, known.variable)
        env[v] = known

    for v, known in zip(body.jaxpr.invars, inputs, strict=True):
        learn(v, known)
    for v, value in zip(body.jaxpr.constvars, body.consts, strict=True):
        learn(v, _constant(value))
    dead.known[id(body)] = env

    def read(v: Var | Literal) -> Known:
        return _constant(v.val) if isinstance(v, Literal) else env[v]

    for step in body.steps:
        facts = [read(v) for v in step.eqn.invars]
        if step.bodies:
            results = _run(step, facts, dead)
        elif step.primitive in elementwise.IDENTITIES:
            results = facts
        else:
            for k, fact in enumerate(facts):
                if fact.variable is not None and step.primitive not in _RENAMED:
                    dead.met.setdefault(fact.variable[0], set()).add((id(step), k))
            results = _step(body, step, facts, dead)
        for v, known in zip(step.eqn.outvars, results, strict=True):
            learn(v, known)
    return [read(v) for v in body.jaxpr.outvars]


def _run(step: Step, known: list[Known], dead: Dead) -> list[Known]:
    """Through a call or control flow; only numbers pass, since `compact` looks at one body."""

    def walk(i: int, inputs: list[Known]) -> list[Known]:
        return [_numbers(fact) for fact in _walk(step.bodies[i], inputs, dead)]

    own_derivative = step.primitive in (p.custom_jvp_call_p, p.custom_vjp_call_p)
    dead.rules += own_derivative  # the derivative would have to add what is lacking, too
    results = control.run(step.eqn, list(map(_numbers, known)), walk, DOMAIN)
    dead.rules -= own_derivative
    return results


def _numbers(known: Known) -> Known:
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

# What keeps a variable what it is, but for its type and axes of size 1.
_RENAMED = frozenset({p.broadcast_in_dim_p, p.convert_element_type_p, p.reshape_p})
# Through these, `compact` can follow one dead slice.
MOVED = frozenset({p.broadcast_in_dim_p, p.squeeze_p, p.transpose_p})
# A slice of one number stays one, wherever its entries go.
REARRANGED = MOVED | frozenset({
    p.dynamic_slice_p, p.reduce_max_p, p.reduce_min_p, p.reshape_p, p.rev_p, p.slice_p,
    jaxprs.split_p, jaxprs.tile_p, jaxprs.unstack_p,
})  # fmt: skip


def _constant(value: Any) -> Known:
    """A scalar is a number; of larger constants nothing is known, but for zeros."""
    kind = getattr(value, "dtype", None) or np.asarray(value).dtype
    if isinstance(value, jax.core.Tracer) or not jax.numpy.issubdtype(kind, np.number):
        return UNKNOWN
    array = np.asarray(value)
    if array.size and np.all(array == array.flat[0]) and np.isreal(array.flat[0]):
        return Known({None: float(array.flat[0].real)})
    return UNKNOWN


def _step(body: Body, step: Step, known: list[Known], dead: Dead) -> list[Known]:
    to = destinations(step)
    if to is None:
        return [UNKNOWN] * len(step.results)
    before = [dead.groups.on(axes) for axes in step.operands]
    if step.primitive in CONSUMERS:
        _note(body, step, before, to, known, dead)
    variable = next((fact.variable for fact in known if fact.variable is not None), None)
    renamed = step.primitive in _RENAMED and variable is not None
    moved = step.primitive is not p.convert_element_type_p
    results = []
    for axes in step.results:
        after = dead.groups.on(axes)
        pairs: list[Pair] = [None, *((k, g) for k, groups in enumerate(after) for g in groups)]
        slices = {}
        for pair in pairs:
            value = _slice(step, pair, before, to, known)
            if value is not None:
                slices[pair] = value
        results.append(
            Known(slices, (variable[0], variable[1] or moved) if renamed and variable else None)
        )
    return results


def _slice(
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
    if step.primitive in elementwise.RULES:
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


def _note(
    body: Body,
    step: Step,
    before: Sequence[Sequence[frozenset[Atom]]],
    to: Destinations,
    known: Sequence[Known],
    dead: Dead,
) -> None:
    """Notes the groups that this step sums away."""
    after = dead.groups.on(step.results[0])
    gone: dict[Atom, list[tuple[int, int]]] = {}  # group: (operand, axis)
    for i, (groups, targets) in enumerate(zip(before, to, strict=True)):
        for k, on in enumerate(groups):
            for group in on:
                if not any(group in after[j] for j in targets[k]):
                    gone.setdefault(group, []).append((i, k))
    dead.lacking.pop(id(step), None)
    for group, places in gone.items():
        slices = {place: known[place[0]].at((place[1], group)) for place in places}
        operands = {i for i, _ in places}
        if any(all(n == 0.0 for (i, _), n in slices.items() if i == own) for own in operands):
            continue  # one operand that is zero on all its axes is enough
        dead.pending.pop((id(step), group), None)
        first = slices[places[0]]
        if BROKEN in slices.values():
            dead.give_up(group, f"{not_zero(step)}, they are not even finite", step.source)
        elif step.primitive is p.reduce_sum_p and _is_followed(step, places, first, dead):
            lacking = dead.lacking.setdefault(id(step), [])
            lacking.append((places[0][1], group))
            if len({axis for axis, _ in lacking}) > 1:  # dead channels of both would be left out
                for _, other in lacking:
                    dead.give_up(other, not_zero(step), step.source)
        elif step.primitive not in contraction.RULES:
            dead.give_up(group, not_zero(step), step.source)
        elif len(places) == 2 and operands == {0, 1} and isinstance(first, float):
            dead.pending[id(step), group] = Pending(
                body=body, step=step, group=group, number=first, places=tuple(places)
            )
        elif closed := _kernel_axes(places, known):
            dead.closable.setdefault(group, set()).update(closed)
        else:
            dead.give_up(group, not_zero(step), step.source)


def _is_followed(
    step: Step,
    places: Sequence[tuple[int, int]],
    value: float | Alike | None,
    dead: Dead,
) -> bool:
    """Whether `compact` can add to a sum what it lacks."""
    ((_, axis), *others) = places
    simple = not others and _is_simple(step.operands[0][axis])
    return simple and value is not None and not dead.rules


def _kernel_axes(places: Sequence[tuple[int, int]], known: Sequence[Known]) -> set[tuple[int, int]]:
    """The axes of a kernel whose product with an activation sums the group away."""
    for own in {i for i, _ in places}:
        variable = known[own].variable
        if variable is not None and not variable[1]:
            return {(variable[0], k) for i, k in places if i == own}
    return set()


def _is_simple(term: Term) -> bool:
    """A group, or a concatenation of different groups: every dead channel is one position."""
    term = resolve(term)
    parts = term.parts if isinstance(term, Sum) else (term,)
    return all(isinstance(part, Atom) for part in parts) and len(set(parts)) == len(parts)


def _bias_use(env: Mapping[Var, Known], pending: Pending) -> Use | None:
    """The kernel and the bias that can take what the dead slices add, if there are."""
    step, places = pending.step, dict(pending.places)
    kernel = env_at(env, step.eqn.invars[1]).variable
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
    bias = env_at(env, add.eqn.invars[other]).variable
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


def env_at(env: Mapping[Var, Known], v: Var | Literal) -> Known:
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
