"""Which axes of variables are zeroed with a dead channel, so that consumers see exactly zero."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from regularizers.channels.dead import Use, find_dead
from regularizers.channels.exactness import NOTHING, Signs, find_inexact
from regularizers.primitives.signs import ANY, ZERO
from regularizers.primitives.sources import source_line
from regularizers.primitives.step import Body
from regularizers.primitives.terms import Atom, atoms

Place = tuple[int, int]  # (variable, axis)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What zeros along some axes of variables do.

    Attributes:
        reasons: why each group is inexact that is.
        uses: what biases can take, of the groups that can be folded.
        closed: the axes that would have to be zeroed as well for some of them to be exact.
        poles: for each group the steps, by `id`, that divide by its dead slices.
    """

    reasons: Mapping[str, str]
    uses: Mapping[str, list[Use]]
    closed: Collection[Place]
    poles: Mapping[str, Collection[int]]


def judge(
    body: Body,
    named: Mapping[str, Atom],
    produces: Sequence[Collection[int]],
    wanted: Callable[[int, str], bool] = lambda variable, group: True,
) -> Verdict:
    """Which groups are exact when the given axes are zeroed.

    Args:
        body: the inferred function.
        named: the groups.
        produces: the axes of every variable.
        wanted: whether those of variable i are zeroed for a group.
    """
    groups = set(named.values())
    names = {atom: name for name, atom in named.items()}
    inputs = zeroed_inputs(body, groups, produces, lambda i, atom: wanted(i, names[atom]))
    exactness = find_inexact(body, groups, inputs)
    reasons: dict[str, str] = {}
    uses: dict[str, list[Use]] = {}
    closed: set[Place] = set()
    poles = {name: exactness.poles[atom] for name, atom in named.items() if atom in exactness.poles}
    if exactness.reasons:
        dead = find_dead(body, exactness, len(produces))
        for name, atom in named.items():
            if atom in dead.reasons:
                reason, source = dead.reasons[atom]
                where = source_line(source)
                reasons[name] = f"{reason} [{where}]" if where else reason
            elif atom in dead.closable:
                closed |= dead.closable[atom]
                reasons[name] = "its dead channels are not zero where kernels take them in"
            elif atom in dead.uses:
                uses[name] = dead.uses[atom]
                number = uses[name][0].number
                reasons[name] = (
                    f"its dead channels are {number:.6g}; biases can take it, by graph.fold"
                )
    return Verdict(reasons=reasons, uses=uses, closed=closed, poles=poles)


def zeroed_inputs(
    body: Body,
    groups: Collection[Atom],
    produces: Sequence[Collection[int]],
    wanted: Callable[[int, Atom], bool] = lambda variable, group: True,
) -> list[Signs]:
    """What is known of each input of `body`: the dead slices that are zero."""
    zeroed = [
        Signs(
            ANY,
            {
                (k, atom): ZERO
                for k in own
                for atom in atoms(axes[k])
                if atom in groups and wanted(i, atom)
            },
        )
        for i, (own, axes) in enumerate(zip(produces, body.inputs, strict=False))
    ]
    return zeroed + [NOTHING] * (len(body.inputs) - len(zeroed))


def settle(
    body: Body,
    named: Mapping[str, Atom],
    produces: Sequence[Collection[int]],
    follows: Sequence[bool],
    divisors: Mapping[int, Collection[Place]],
) -> tuple[list[frozenset[int]], Verdict]:
    """The axes of every variable that are zeroed with their groups, and what that does.

    All that produces is, and the rows of kernels that take in what no producer silences; but not
    what divides (a learned temperature, a stored deviation), where nothing needs it to be zero. A
    group that is exact only by the zeros of statistics, which training does not make, has the
    rows of its kernels zeroed as well, where that is enough without them.

    Args:
        body: the inferred function.
        named: the groups.
        produces: the axes of every variable that could be.
        follows: whether each variable becomes zero with the others, as it is trained, or written by
            the function itself.
        divisors: the variables that divisors are made of, by the `id` of the step that divides.
    """
    zeroed = [set(own) for own in produces]
    verdict = _close(body, named, zeroed)
    if verdict.reasons.keys() & verdict.poles.keys():
        verdict = _spare(body, named, zeroed, verdict, divisors)
    if any(own and not follow for own, follow in zip(zeroed, follows, strict=True)):
        verdict = _outlive(body, named, zeroed, verdict, follows)
    return [frozenset(own) for own in zeroed], verdict


def _close(body: Body, named: Mapping[str, Atom], zeroed: Sequence[set[int]]) -> Verdict:
    """With the rows of kernels that take in what is not zero.

    A head with values of others' (grouped queries) has no producer whose zeros silence it.
    """
    verdict = judge(body, named, zeroed)
    if not verdict.closed:
        return verdict
    for i, k in verdict.closed:
        zeroed[i].add(k)
    return judge(body, named, zeroed)


def _spare(
    body: Body,
    named: Mapping[str, Atom],
    zeroed: Sequence[set[int]],
    verdict: Verdict,
    divisors: Mapping[int, Collection[Place]],
) -> Verdict:
    """Without the zeros of what divides, for the groups that are exact then."""
    broken = {name: named[name] for name in verdict.reasons if name in verdict.poles}
    fewer, found = [set(own) for own in zeroed], verdict
    while True:
        spared = {
            (i, k)
            for name in broken.keys() & found.reasons.keys() & found.poles.keys()
            for step in found.poles[name]
            for i, k in divisors.get(step, ())
            if k in fewer[i] and named[name] in set(atoms(body.inputs[i][k]))
        }
        if not spared:
            break
        for i, k in spared:
            fewer[i].discard(k)
        found = _close(body, broken, fewer)
    return _adopt(body, named, zeroed, verdict, fewer, broken.keys() - found.reasons.keys())


def _outlive(
    body: Body,
    named: Mapping[str, Atom],
    zeroed: Sequence[set[int]],
    verdict: Verdict,
    follows: Sequence[bool],
) -> Verdict:
    """With rows zeroed that make the zeros of statistics needless, where there are any."""
    exact = {name: atom for name, atom in named.items() if name not in verdict.reasons}
    learned = [set(own) if f else set() for own, f in zip(zeroed, follows, strict=True)]
    before = judge(body, exact, learned)
    if not before.closed:
        return verdict
    for i, k in before.closed:
        if follows[i]:
            learned[i].add(k)
    after = judge(body, exact, learned)
    more = [own | closed for own, closed in zip(zeroed, learned, strict=True)]
    gained = before.reasons.keys() - after.reasons.keys()
    return _adopt(body, named, zeroed, verdict, more, gained)


def _adopt(
    body: Body,
    named: Mapping[str, Atom],
    zeroed: Sequence[set[int]],
    verdict: Verdict,
    other: Sequence[set[int]],
    names: Collection[str],
) -> Verdict:
    """Takes over the axes of `other` that carry these groups, if no group loses by it."""
    wanted = {named[name] for name in names}
    changed = [
        {k for k in own ^ new if wanted & set(atoms(body.inputs[i][k]))}
        for i, (own, new) in enumerate(zip(zeroed, other, strict=True))
    ]
    if not any(changed):
        return verdict
    found = judge(body, named, [own ^ new for own, new in zip(zeroed, changed, strict=True)])
    if not found.reasons.keys() <= verdict.reasons.keys():
        return verdict
    for own, new in zip(zeroed, changed, strict=True):
        own ^= new
    return found
