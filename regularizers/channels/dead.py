"""What the slices of dead channels hold where they are not zero.

`exactness` asks whether a dead channel is zero wherever it is consumed. Where it is not, this pass
looks closer. The slice may be a *number* (sigmoid(0) = 1/2): what it adds to a layer is a constant,
which the layer's bias can take. Or all dead slices of a group may be *alike*, whatever they are
((0 - mean)^2 in a variance): a sum over the group then lacks so many times the same, and `compact`
adds it. Anything else dies with the rows of the kernel that takes it in, which then produce, too
(grouped queries, noise), unless it is not finite. What no kernel takes in makes the group inexact.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from regularizers.channels import control
from regularizers.channels.biases import Pending, Use, bias_use
from regularizers.channels.exactness import NOTHING, Exactness, Groups, not_zero
from regularizers.channels.slices import (
    BROKEN,
    DOMAIN,
    UNKNOWN,
    Alike,
    Known,
    Pair,
    constant,
    numbers,
    slice_of,
)
from regularizers.primitives import elementwise
from regularizers.primitives.jaxprs import Literal, Var
from regularizers.primitives.jaxprs import primitives as p
from regularizers.primitives.signs import BROKEN as BROKEN_SIGN
from regularizers.primitives.signs import ZERO
from regularizers.primitives.step import Body, Destinations, Step
from regularizers.primitives.table import RECORDS
from regularizers.primitives.terms import Atom, Source, Sum, Term, atoms, resolve


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
        lacking: for each sum, by the `id` of its step, what of its operand lacks dead slices: an
            axis and a part of that (see `parts_of`), with a group that the slices are of.
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
    lacking: dict[int, dict[tuple[int, int], Atom]] = field(default_factory=dict)
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
        use = bias_use(dead.known[id(pending.body)], pending)
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
    signs = dead.exactness.signs[id(body)]

    def learn(v: Var, known: Known) -> None:
        """What is known to be zero is zero."""
        own = signs.get(v, NOTHING)
        if own.whole == ZERO:
            known = Known({None: 0.0}, known.variable)
        elif own.dead:
            slices = dict(known.slices)
            for pair, sign in own.dead.items():
                if pair[1] not in dead.groups:
                    continue
                if sign == ZERO:
                    slices[pair] = 0.0
                elif sign & BROKEN_SIGN and not isinstance(slices.get(pair), float):
                    slices[pair] = BROKEN  # of numbers it is known whether they are zero
            known = Known(slices, known.variable)
        env[v] = known

    for v, known in zip(body.jaxpr.invars, inputs, strict=True):
        learn(v, known)
    for v, value in zip(body.jaxpr.constvars, body.consts, strict=True):
        learn(v, constant(value))
    dead.known[id(body)] = env

    def read(v: Var | Literal) -> Known:
        return constant(v.val) if isinstance(v, Literal) else env[v]

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
    """Through a call or control flow; into a loop or a derivative rule only numbers pass."""
    if step.primitive in control.IN_PLACE:
        return _walk(step.bodies[0], known, dead)

    def walk(i: int, inputs: list[Known]) -> list[Known]:
        return [numbers(fact) for fact in _walk(step.bodies[i], inputs, dead)]

    own_derivative = step.primitive in (p.custom_jvp_call_p, p.custom_vjp_call_p)
    dead.rules += own_derivative  # the derivative would have to add what is lacking, too
    results = control.run(step.eqn, list(map(numbers, known)), walk, DOMAIN)
    dead.rules -= own_derivative
    return results


# What keeps a variable what it is, but for its type and axes of size 1.
_RENAMED = frozenset({p.broadcast_in_dim_p, p.convert_element_type_p, p.reshape_p})


def _step(body: Body, step: Step, known: list[Known], dead: Dead) -> list[Known]:
    record, to = RECORDS.get(step.primitive), step.to
    if record is None or to is None:
        return [UNKNOWN] * len(step.results)
    before = [dead.groups.on(axes) for axes in step.operands]
    if record.sums:
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
            value = slice_of(step, pair, before, to, known)
            if value is not None:
                slices[pair] = value
        results.append(
            Known(slices, (variable[0], variable[1] or moved) if renamed and variable else None)
        )
    return results


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
    summed: dict[int, list[Atom]] = {}  # by axis, the groups that the sum lacks
    for group, places in gone.items():
        slices = {place: known[place[0]].at((place[1], group)) for place in places}
        operands = {i for i, _ in places}
        if BROKEN in slices.values():  # which no zero mends
            dead.give_up(group, f"{not_zero(step)}, they are not even finite", step.source)
            continue
        if any(all(n == 0.0 for (i, _), n in slices.items() if i == own) for own in operands):
            continue  # one operand that is zero on all its axes is enough
        dead.pending.pop((id(step), group), None)
        first = slices[places[0]]
        if step.primitive is p.reduce_sum_p and _is_followed(step, places, first, dead):
            lacking = dead.lacking.setdefault(id(step), {})
            axis = places[0][1]
            parts = parts_of(step.operands[0][axis])
            part = next(n for n, part in enumerate(parts) if group in atoms(part))
            lacking.setdefault((axis, part), group)
            summed.setdefault(axis, []).append(group)
            if len(summed) > 1:  # dead channels of both would be left out
                for other in itertools.chain.from_iterable(summed.values()):
                    dead.give_up(other, not_zero(step), step.source)
        elif not RECORDS[step.primitive].contracts:
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
    """A concatenation of different groups, or of merges of such.

    In a merge (whole groups of channels x the channels of each) a position is dead if any of its
    channels is. Where all dead slices of one group are alike, so are those of the others with
    which they share positions.
    """
    found = [atom for part in parts_of(term) for atom in atoms(part) if atom.pin is None]
    return len(set(found)) == len(found)


def parts_of(term: Term) -> tuple[Term, ...]:
    """The parts of a concatenation, or all of any other axis."""
    term = resolve(term)
    return term.parts if isinstance(term, Sum) else (term,)
