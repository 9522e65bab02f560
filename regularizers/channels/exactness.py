"""Whether a dead channel is exactly zero wherever its group is consumed.

Given that all producers of a dead channel are zero, one forward pass tracks for every value the
groups whose dead slices are exactly zero in it. Where a contraction or a sum makes a group
disappear from a value that is not zero there, removing the channel is not the same as masking it:
the group is *inexact*, and the step where that happens is the reason. Values are taken to be
finite.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from regularizers.channels import control
from regularizers.primitives import elementwise
from regularizers.primitives.jaxprs import Literal, Var
from regularizers.primitives.record import Record
from regularizers.primitives.step import Body, Destinations, Step
from regularizers.primitives.table import RECORDS
from regularizers.primitives.terms import Atom, Axes, Source, Term, atoms, find
from regularizers.primitives.zero import (
    EVERYTHING,
    NOTHING,
    Broken,
    Meeting,
    Pair,
    Signed,
    Zeros,
    constant,
    nothing,
)


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
        zeros: for each body, by `id`, what is zero in its values.
    """

    groups: Groups
    reasons: dict[Atom, tuple[str, Source]] = field(default_factory=dict)
    zeros: dict[int, dict[Var, Zeros]] = field(default_factory=dict)


def find_inexact(body: Body, groups: Collection[Atom], zeroed: Sequence[Zeros]) -> Exactness:
    """The groups that are not exact when some variables' slices are zero.

    Args:
        body: the inferred function.
        groups: the atoms that stand for groups.
        zeroed: for each input of `body`, the axes and groups whose dead slices are zero.
    """
    state = Exactness(Groups(groups))
    _walk(body, list(zeroed), state)
    return state


def _walk(body: Body, inputs: Sequence[Zeros], state: Exactness) -> list[Zeros]:
    env: dict[Var, Zeros] = dict(zip(body.jaxpr.invars, inputs, strict=True))
    for v, value in zip(body.jaxpr.constvars, body.consts, strict=True):
        env[v] = constant(value)
    state.zeros[id(body)] = env

    def read(v: Var | Literal) -> Zeros:
        return constant(v.val) if isinstance(v, Literal) else env[v]

    for step in body.steps:
        zeros = [read(v) for v in step.eqn.invars]
        if step.bodies:
            results = _run(step, zeros, state)
        elif step.primitive in elementwise.IDENTITIES:
            results = zeros
        elif step.primitive in elementwise.OBSERVERS:
            results = []
        else:
            results = _step(step, zeros, state)
        env.update(zip(step.eqn.outvars, results, strict=True))
    return [read(v) for v in body.jaxpr.outvars]


def _run(step: Step, zeros: list[Zeros], state: Exactness) -> list[Zeros]:
    """Through a call or control flow.

    What is noted in an early round of a loop stays true: later rounds know of fewer zeros.
    """

    def walk(i: int, inputs: list[Zeros]) -> list[Zeros]:
        return _walk(step.bodies[i], inputs, state)

    return control.run(step.eqn, zeros, walk, DOMAIN)


def _join(a: Zeros, b: Zeros) -> Zeros:
    """What is zero in both; a sign where both have it."""
    if a is b or b is EVERYTHING:
        return a
    if a is EVERYTHING:
        return b
    if isinstance(a, Signed):  # and b has another sign, or none
        a = NOTHING
    joined = (a & b) | broken(a) | broken(b)
    return a if joined == a else joined


def broken(value: Zeros) -> frozenset[Broken]:
    """The pairs whose dead slices are not finite."""
    return frozenset(entry for entry in value if isinstance(entry, Broken))


def _moved(value: Zeros, by: int) -> Zeros:
    """The same one axis further to the right, or to the left where there is one."""
    found: set[Pair | Broken] = set()
    for entry in value:
        k, group = entry.pair if isinstance(entry, Broken) else entry
        if k + by >= 0:
            found.add(Broken((k + by, group)) if isinstance(entry, Broken) else (k + by, group))
    return frozenset(found)


def _entry(value: Zeros) -> Zeros:
    if value is EVERYTHING or isinstance(value, Signed):
        return value
    return _moved(value, -1)


def _stack(value: Zeros, length: int) -> Zeros:
    if value is EVERYTHING or isinstance(value, Signed):
        return value if length else NOTHING
    return _moved(value, 1)


DOMAIN: control.Domain[Zeros] = control.Domain(join=_join, entry=_entry, stack=_stack)


def _step(step: Step, zeros: Sequence[Zeros], state: Exactness) -> list[Zeros]:
    """The zeros of every result; notes each group that is consumed where it is not zero."""
    record, to = RECORDS.get(step.primitive), step.to
    if record is None or to is None:
        return [NOTHING] * len(step.results)
    before = [state.groups.on(axes) for axes in step.operands]
    if record.sums:
        _note_consumed(step, before, to, zeros, state)
    return [
        _result(record, _arrive(step, before, zeros, state.groups.on(r), record.keeps_sign))
        for r in step.results
    ]


def _result(record: Record, m: Meeting) -> Zeros:
    """What its record says, less what is not finite."""
    zeros, bad = (record.zero or nothing)(m), m.broken | record.pole(m)
    if not bad:
        return zeros
    if zeros is EVERYTHING or isinstance(zeros, Signed):
        zeros = NOTHING
    return (zeros - bad) | frozenset(map(Broken, bad))


def _note_consumed(
    step: Step,
    before: Sequence[Sequence[frozenset[Atom]]],
    to: Destinations,
    zeros: Sequence[Zeros],
    state: Exactness,
) -> None:
    after = state.groups.on(step.results[0])
    consumed: set[Atom] = set()
    harmless: set[Atom] = set()  # one operand that is zero on all its consumed axes is enough
    bad: set[Atom] = set()
    for groups_of, targets, zero in zip(before, to, zeros, strict=True):
        is_zero: dict[Atom, bool] = {}
        for k, groups in enumerate(groups_of):
            for group in groups:
                if not any(group in after[j] for j in targets[k]):
                    is_zero[group] = is_zero.get(group, True) and (k, group) in zero
                    if zero is not EVERYTHING and Broken((k, group)) in zero:
                        bad.add(group)
        consumed.update(is_zero)
        harmless.update(group for group, zero_on_all in is_zero.items() if zero_on_all)
    for group in (consumed - harmless | bad) - state.reasons.keys():
        state.reasons[group] = (not_zero(step), step.source)


def not_zero(step: Step) -> str:
    """The reason why a group is inexact."""
    return f"its dead channels are not zero where {step.primitive.name} consumes them"


def _arrive(
    step: Step,
    before: Sequence[Sequence[frozenset[Atom]]],
    zeros: Sequence[Zeros],
    after: Sequence[frozenset[Atom]],
    keeps_sign: bool,
) -> Meeting:
    """What the operands bring to the axes of one result."""
    carried: list[Zeros] = []
    moved: list[Zeros] = []
    bad: set[Pair] = set()
    for groups_of, targets, zero in zip(before, step.to or (), zeros, strict=True):
        arrived: dict[tuple[int, Atom], bool] = {}
        for k, groups in enumerate(groups_of):
            for j in targets[k]:
                for group in groups & after[j]:
                    arrived[j, group] = arrived.get((j, group), True) and (k, group) in zero
                    if zero is not EVERYTHING and Broken((k, group)) in zero:
                        bad.add((j, group))
        carried.append(frozenset(arrived))
        kept = frozenset(pair for pair, is_zero in arrived.items() if is_zero)
        whole = zero is EVERYTHING or (isinstance(zero, Signed) and keeps_sign)
        moved.append(zero if whole else kept)
    pairs = frozenset((j, group) for j, groups in enumerate(after) for group in groups)
    return Meeting(eqn=step.eqn, zeros=moved, carried=carried, pairs=pairs, broken=frozenset(bad))
