"""Whether a dead channel is exactly zero wherever its group is consumed.

Given that all producers of a dead channel are zero, one forward pass tracks for every value the
groups whose dead slices are exactly zero in it. Where a contraction or a sum makes a group
disappear from a value that is not zero there, removing the channel is not the same as masking it:
the group is *inexact*, and the step where that happens is the reason. Values are taken to be
finite.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from regularizers.channels import jaxprs
from regularizers.channels.coupling import contraction, elementwise, reduction
from regularizers.channels.flow import Destinations, destinations
from regularizers.channels.inference import Body, Step
from regularizers.channels.jaxprs import JaxprEqn, Literal, Primitive, Var
from regularizers.channels.jaxprs import primitives as p
from regularizers.channels.terms import Atom, Axes, Source, atoms

Zeros: TypeAlias = frozenset[tuple[int, Atom]]  # (axis, group): dead slices along it are zero


class Everything(frozenset[tuple[int, Atom]]):
    """The zeros of a value that is zero everywhere: it contains any pair."""

    def __contains__(self, item: object) -> bool:
        return True


EVERYTHING = Everything()
NOTHING: Zeros = frozenset()


@dataclass(frozen=True)
class Exactness:
    """The groups asked for, and the first step that consumed a slice of one that is not zero."""

    groups: frozenset[Atom]
    reasons: dict[Atom, tuple[str, Source]] = field(default_factory=dict)


def find_inexact(
    body: Body, groups: Collection[Atom], zeroed: Sequence[Zeros]
) -> dict[Atom, tuple[str, Source]]:
    """The groups that are not exact when some variables' slices are zero.

    Args:
        body: the inferred function.
        groups: the atoms that stand for groups.
        zeroed: for each input of `body`, the axes and groups whose dead slices are zero.

    Returns:
        For each group that is not exact, the reason and the source of the step.
    """
    state = Exactness(frozenset(groups))
    _walk(body, list(zeroed), state)
    return state.reasons


def _walk(body: Body, inputs: Sequence[Zeros], state: Exactness) -> list[Zeros]:
    env: dict[Var, Zeros] = dict(zip(body.jaxpr.invars, inputs, strict=True))
    for v, value in zip(body.jaxpr.constvars, body.consts, strict=True):
        env[v] = _zero_if(_is_zero(value))

    def read(v: Var | Literal) -> Zeros:
        return _zero_if(_is_zero(v.val)) if isinstance(v, Literal) else env[v]

    for step in body.steps:
        zeros = [read(v) for v in step.eqn.invars]
        if step.body is not None:
            results = _walk(step.body, zeros, state)
        else:
            results = _step(step, zeros, state)
        env.update(zip(step.eqn.outvars, results, strict=True))
    return [read(v) for v in body.jaxpr.outvars]


def _step(step: Step, zeros: Sequence[Zeros], state: Exactness) -> list[Zeros]:
    """The zeros of every result; notes each group that is consumed where it is not zero."""
    to = destinations(step)
    if to is None:
        return [NOTHING] * len(step.results)
    before = [_groups(axes, state) for axes in step.operands]
    if step.primitive in CONSUMERS:
        _note_consumed(step, before, to, zeros, state)
    rule = ZEROS.get(step.primitive)
    if rule is None:
        return [NOTHING] * len(step.results)
    return [rule(_arrive(step.eqn, before, to, zeros, _groups(r, state))) for r in step.results]


def _note_consumed(
    step: Step,
    before: Sequence[Sequence[frozenset[Atom]]],
    to: Destinations,
    zeros: Sequence[Zeros],
    state: Exactness,
) -> None:
    after = _groups(step.results[0], state)
    consumed: set[Atom] = set()
    harmless: set[Atom] = set()  # one operand that is zero is enough
    for groups_of, targets, zero in zip(before, to, zeros, strict=True):
        for k, groups in enumerate(groups_of):
            for group in groups:
                if not any(group in after[j] for j in targets[k]):
                    consumed.add(group)
                    if (k, group) in zero:
                        harmless.add(group)
    for group in consumed - harmless - state.reasons.keys():
        reason = f"its dead channels are not zero where {step.primitive.name} consumes them"
        state.reasons[group] = (reason, step.source)


def _arrive(
    eqn: JaxprEqn,
    before: Sequence[Sequence[frozenset[Atom]]],
    to: Destinations,
    zeros: Sequence[Zeros],
    after: Sequence[frozenset[Atom]],
) -> Meeting:
    """What the operands bring to the axes of one result."""
    carried: list[Zeros] = []
    moved: list[Zeros] = []
    for groups_of, targets, zero in zip(before, to, zeros, strict=True):
        arrived: dict[tuple[int, Atom], bool] = {}
        for k, groups in enumerate(groups_of):
            for j in targets[k]:
                for group in groups & after[j]:
                    arrived[j, group] = arrived.get((j, group), True) and (k, group) in zero
        carried.append(frozenset(arrived))
        kept = frozenset(pair for pair, is_zero in arrived.items() if is_zero)
        moved.append(EVERYTHING if zero is EVERYTHING else kept)
    pairs = frozenset((j, group) for j, groups in enumerate(after) for group in groups)
    return Meeting(eqn=eqn, zeros=moved, carried=carried, pairs=pairs)


def _groups(axes: Axes, state: Exactness) -> list[frozenset[Atom]]:
    """The groups on each axis."""
    return [frozenset(atoms(term)) & state.groups for term in axes]


def _zero_if(zero: bool) -> Zeros:
    return EVERYTHING if zero else NOTHING


def _is_zero(value: Any) -> bool:
    """True if a constant is zero everywhere; random keys are not looked at."""
    kind = getattr(value, "dtype", np.asarray(0).dtype)
    return np.issubdtype(kind, np.number) and not np.any(np.asarray(value))


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """One equation seen from the axes of one result."""

    eqn: JaxprEqn
    zeros: list[Zeros]  # per operand, what is zero in it
    carried: list[Zeros]  # per operand, what it carries at all
    pairs: Zeros  # all that the result carries


ZeroRule: TypeAlias = Callable[[Meeting], Zeros]


def all_of(m: Meeting) -> Zeros:
    """f(0, .., 0) = 0: every operand must be zero."""
    if all(zero is EVERYTHING for zero in m.zeros):
        return EVERYTHING
    return frozenset(pair for pair in m.pairs if all(pair in zero for zero in m.zeros))


def any_of(m: Meeting) -> Zeros:
    """A product: one operand that is zero is enough."""
    if any(zero is EVERYTHING for zero in m.zeros):
        return EVERYTHING
    return frozenset(pair for zero in m.zeros for pair in zero)


def first(m: Meeting) -> Zeros:
    """Only the first operand's values appear in the result."""
    return m.zeros[0]


def ratio(m: Meeting) -> Zeros:
    """0/y = 0, but 0/0 never counts as zero."""
    top, bottom = m.zeros
    if bottom is EVERYTHING:
        return NOTHING
    return top if top is EVERYTHING else top - bottom


def power(m: Meeting) -> Zeros:
    """0^y = 0 for y > 0."""
    return m.zeros[0] if m.eqn.params["y"] > 0 else NOTHING


def select(m: Meeting) -> Zeros:
    """Whatever the predicate, all cases must be zero."""
    cases = m.zeros[1:]
    if all(zero is EVERYTHING for zero in cases):
        return EVERYTHING
    return frozenset(pair for pair in m.pairs if all(pair in zero for zero in cases))


def clamp(m: Meeting) -> Zeros:
    """clamp(low, 0, high) = 0 where low <= 0 <= high, which is known of literals only."""
    low, _, high = m.eqn.invars
    if not (isinstance(low, Literal) and isinstance(high, Literal)):
        return NOTHING
    return m.zeros[1] if np.all(low.val <= 0) and np.all(high.val >= 0) else NOTHING


def joined(m: Meeting) -> Zeros:
    """A concatenation: zero on a group where every operand that carries it is."""
    if all(zero is EVERYTHING for zero in m.zeros):
        return EVERYTHING
    operands = list(zip(m.zeros, m.carried, strict=True))
    return frozenset(
        pair for pair in m.pairs if all(pair in zero for zero, has in operands if pair in has)
    )


def padded(m: Meeting) -> Zeros:
    """Padding with zero adds zeros; with anything else it may reach dead channels."""
    if m.zeros[1] is not EVERYTHING:
        return NOTHING
    return EVERYTHING if m.zeros[0] is EVERYTHING else m.zeros[0] | (m.pairs - m.carried[0])


CONSUMERS: frozenset[Primitive] = frozenset({*contraction.RULES, *reduction.REDUCTIONS})

ZEROS: dict[Primitive, ZeroRule] = {
    **dict.fromkeys(elementwise.ZERO_TO_ZERO, first),
    **dict.fromkeys(elementwise.ZEROS_TO_ZERO, all_of),
    **dict.fromkeys(elementwise.ANY_ZERO_TO_ZERO, any_of),
    **dict.fromkeys(elementwise.NUMERATOR, first),
    p.div_p: ratio,
    p.rem_p: ratio,
    p.integer_pow_p: power,
    p.select_n_p: select,
    jaxprs.clamp_p: clamp,
    p.dot_general_p: any_of,
    p.conv_general_dilated_p: any_of,
    p.concatenate_p: joined,
    p.pad_p: padded,
    **dict.fromkeys(
        (
            p.bitcast_convert_type_p,
            p.broadcast_in_dim_p,
            p.cumsum_p,
            p.dynamic_slice_p,
            p.gather_p,
            p.reduce_max_p,
            p.reduce_min_p,
            p.reduce_sum_p,
            p.reduce_window_max_p,
            p.reduce_window_min_p,
            p.reduce_window_sum_p,
            p.reshape_p,
            p.rev_p,
            p.slice_p,
            p.squeeze_p,
            p.transpose_p,
            jaxprs.split_p,
        ),
        first,
    ),
}
