"""Whether a dead channel is exactly zero wherever its group is consumed.

Given that all producers of a dead channel are zero, one forward pass tracks the signs of every
value, and those of its slices that belong to dead channels. Where a contraction or a sum makes a
group disappear from a value that is not zero there, removing the channel is not the same as masking
it: the group is *inexact*, and the step where that happens is the reason. Values are taken to be
finite, but for what the zeros make of them: zero over what is, or may be, zero, too.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from regularizers.channels import control
from regularizers.primitives import elementwise
from regularizers.primitives.jaxprs import Literal, Var
from regularizers.primitives.record import Record
from regularizers.primitives.signs import (
    ANY,
    BROKEN,
    ZERO,
    Meeting,
    Sign,
    anything,
    possible,
    sign_of,
    whole_of,
)
from regularizers.primitives.step import Body, Destinations, Step
from regularizers.primitives.table import RECORDS
from regularizers.primitives.terms import Atom, Axes, Source, Term, atoms, find

Pair: TypeAlias = tuple[int, Atom]  # (axis, group)


@dataclass(frozen=True)
class Signs:
    """The signs of a value.

    Attributes:
        whole: of all entries.
        dead: of the slices of dead channels that depend on what was zeroed.
    """

    whole: Sign
    dead: Mapping[Pair, Sign] = field(default_factory=dict)

    def at(self, pair: Pair) -> Sign:
        """Of one slice."""
        return self.dead.get(pair, self.whole)


NOTHING, EVERYTHING = Signs(ANY), Signs(ZERO)  # is known of it; is zero


class Groups(frozenset[Atom]):
    """The groups of a pass; remembers which of them a term has, since terms are shared."""

    def __init__(self, groups: Iterable[Atom]) -> None:
        self._of: dict[Term, frozenset[Atom]] = {}

    def on(self, axes: Axes) -> list[frozenset[Atom]]:
        """The groups on each axis."""
        found = []
        for term in axes:
            root = find(term)
            if root not in self._of:
                self._of[root] = self.intersection(atoms(root))
            found.append(self._of[root])
        return found


@dataclass(frozen=True)
class Exactness:
    """What the pass found.

    Attributes:
        groups: the groups asked for.
        reasons: for each that is not exact, the reason and the source of the step.
        signs: for each body, by `id`, the signs of its values.
        poles: for each group the steps, by `id`, that divide by its dead slices.
    """

    groups: Groups
    reasons: dict[Atom, tuple[str, Source]] = field(default_factory=dict)
    signs: dict[int, dict[Var, Signs]] = field(default_factory=dict)
    poles: dict[Atom, set[int]] = field(default_factory=dict)


def find_inexact(body: Body, groups: Collection[Atom], inputs: Sequence[Signs]) -> Exactness:
    """The groups that are not exact when some variables' slices are zero.

    Args:
        body: the inferred function.
        groups: the atoms that stand for groups.
        inputs: of each input of `body`: the axes and groups whose dead slices are zero.
    """
    state = Exactness(Groups(groups))
    _walk(body, list(inputs), state)
    return state


def _walk(body: Body, inputs: Sequence[Signs], state: Exactness) -> list[Signs]:
    env: dict[Var, Signs] = dict(zip(body.jaxpr.invars, inputs, strict=True))
    for v, value in zip(body.jaxpr.constvars, body.consts, strict=True):
        env[v] = Signs(sign_of(value))
    state.signs[id(body)] = env

    def read(v: Var | Literal) -> Signs:
        return Signs(sign_of(v.val)) if isinstance(v, Literal) else env[v]

    for step in body.steps:
        signs = [read(v) for v in step.eqn.invars]
        if step.bodies:
            results = _run(step, signs, state)
        elif step.primitive in elementwise.IDENTITIES:
            results = signs
        elif step.primitive in elementwise.OBSERVERS:
            results = []
        else:
            results = _step(step, signs, state)
        env.update(zip(step.eqn.outvars, results, strict=True))
    return [read(v) for v in body.jaxpr.outvars]


def _run(step: Step, signs: list[Signs], state: Exactness) -> list[Signs]:
    """Through a call or control flow.

    What is noted in an early round of a loop stays true: later rounds know less.
    """

    def walk(i: int, inputs: list[Signs]) -> list[Signs]:
        return _walk(step.bodies[i], inputs, state)

    return control.run(step.eqn, signs, walk, DOMAIN)


def _join(a: Signs, b: Signs) -> Signs:
    """The signs of either."""
    if a is b:
        return a
    dead = {pair: a.at(pair) | b.at(pair) for pair in a.dead.keys() | b.dead.keys()}
    joined = Signs(a.whole | b.whole, dead)
    return a if joined == a else joined


def _moved(signs: Signs, by: int) -> Signs:
    """The same one axis further to the right, or to the left where there is one."""
    moved = {(k + by, group): sign for (k, group), sign in signs.dead.items() if k + by >= 0}
    return Signs(signs.whole, moved)


DOMAIN: control.Domain[Signs] = control.Domain(
    join=_join, entry=lambda signs: _moved(signs, -1), stack=lambda signs, _: _moved(signs, 1)
)


def _step(step: Step, signs: Sequence[Signs], state: Exactness) -> list[Signs]:
    """The signs of every result; notes each group that is consumed where it is not zero."""
    record, to = RECORDS.get(step.primitive), step.to
    if record is None or to is None:
        return [Signs(possible(ANY, v)) for v in step.eqn.outvars]
    before = [state.groups.on(axes) for axes in step.operands]
    if record.sums:
        _note_consumed(step, before, to, signs, state)
    return [
        _result(step, record, v, _slices(before, to, signs, state.groups.on(axes)), signs, state)
        for v, axes in zip(step.eqn.outvars, step.results, strict=True)
    ]


def _slices(
    before: Sequence[Sequence[frozenset[Atom]]],
    to: Destinations,
    signs: Sequence[Signs],
    after: Sequence[frozenset[Atom]],
) -> dict[Pair, list[list[Pair]]]:
    """For dead slices of a result the slices of each operand that they come from.

    Those that come from nothing that was zeroed are left out: they are as the rest of the value.
    """
    found: dict[Pair, list[list[Pair]]] = {
        (j, group): [[] for _ in before] for j, groups in enumerate(after) for group in groups
    }
    moved: set[Pair] = set()
    for i, (groups_of, targets) in enumerate(zip(before, to, strict=True)):
        for k, groups in enumerate(groups_of):
            for j in targets[k]:
                for group in groups & after[j]:
                    found[j, group][i].append((k, group))
                    if (k, group) in signs[i].dead:
                        moved.add((j, group))
    return {pair: own for pair, own in found.items() if pair in moved or not any(own)}


def _result(
    step: Step,
    record: Record,
    v: Var,
    slices: Mapping[Pair, Sequence[Sequence[Pair]]],
    operands: Sequence[Signs],
    state: Exactness,
) -> Signs:
    """What its record says of a whole result, and of its dead slices."""
    rule = record.sign or anything

    whole = possible(rule(whole_of(step.eqn, [o.whole for o in operands])), v)
    dead: dict[Pair, Sign] = {}
    for pair, places in slices.items():
        found = [
            functools.reduce(operator.or_, map(o.at, own)) if own else o.whole
            for o, own in zip(operands, places, strict=True)
        ]
        changed = [
            any(place in o.dead for place in own) for o, own in zip(operands, places, strict=True)
        ]
        signs = [sign & ~BROKEN for sign in found]
        here = Meeting(
            eqn=step.eqn, signs=signs, carries=[bool(own) for own in places], changed=changed
        )
        sign = possible(rule(here), v)
        # What was finite before stays so: it is not zero where it must not be.
        at_pole = [s if c else s & ~ZERO for s, c in zip(signs, changed, strict=True)]
        if record.pole(replace(here, signs=at_pole)):
            state.poles.setdefault(pair[1], set()).add(id(step))
            sign |= BROKEN
        sign |= BROKEN if any(s & BROKEN for s in found) else 0
        if sign != whole or any(changed):
            dead[pair] = sign
    return Signs(whole, dead)


def _note_consumed(
    step: Step,
    before: Sequence[Sequence[frozenset[Atom]]],
    to: Destinations,
    signs: Sequence[Signs],
    state: Exactness,
) -> None:
    after = state.groups.on(step.results[0])
    consumed: set[Atom] = set()
    harmless: set[Atom] = set()  # one operand that is zero on all its consumed axes is enough
    bad: set[Atom] = set()
    for groups_of, targets, of in zip(before, to, signs, strict=True):
        is_zero: dict[Atom, bool] = {}
        for k, groups in enumerate(groups_of):
            for group in groups:
                if not any(group in after[j] for j in targets[k]):
                    sign = of.at((k, group))
                    is_zero[group] = is_zero.get(group, True) and sign == ZERO
                    if sign & BROKEN:
                        bad.add(group)
        consumed.update(is_zero)
        harmless.update(group for group, zero_on_all in is_zero.items() if zero_on_all)
    for group in (consumed - harmless | bad) - state.reasons.keys():
        state.reasons[group] = (not_zero(step), step.source)


def not_zero(step: Step) -> str:
    """The reason why a group is inexact."""
    return f"its dead channels are not zero where {step.primitive.name} consumes them"
