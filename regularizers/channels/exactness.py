"""Whether a dead channel is exactly zero wherever its group is consumed.

Given that all producers of a dead channel are zero, one forward pass tracks for every value the
groups whose dead slices are exactly zero in it. Where a contraction or a sum makes a group
disappear from a value that is not zero there, removing the channel is not the same as masking it:
the group is *inexact*, and the step where that happens is the reason. Values are taken to be
finite.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from regularizers.channels import control, jaxprs
from regularizers.channels.coupling import contraction, elementwise, indexing, reduction
from regularizers.channels.flow import Destinations, destinations
from regularizers.channels.inference import Body, Step
from regularizers.channels.jaxprs import JaxprEqn, Literal, Primitive, Var
from regularizers.channels.jaxprs import primitives as p
from regularizers.channels.terms import Atom, Axes, Source, Term, atoms, find

Pair: TypeAlias = tuple[int, Atom]  # (axis, group)


@dataclass(frozen=True)
class Broken:
    """The dead slices along an axis are not finite: 1/0, or made from it. Zero does not mend it."""

    pair: Pair


# The pairs whose dead slices are zero, and the `Broken` ones.
Zeros: TypeAlias = frozenset[Pair | Broken]


class Everything(frozenset[Pair | Broken]):
    """The zeros of a value that is zero everywhere: it contains any pair."""

    def __contains__(self, item: object) -> bool:
        return True


class Signed(frozenset[Pair | Broken]):
    """The zeros of a constant of one sign: none that are known. Compare by identity."""


EVERYTHING = Everything()
NOTHING: Zeros = frozenset()
NOT_BELOW = Signed()  # a constant >= 0
NOT_ABOVE = Signed()  # a constant <= 0


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
        env[v] = _constant(value)
    state.zeros[id(body)] = env

    def read(v: Var | Literal) -> Zeros:
        return _constant(v.val) if isinstance(v, Literal) else env[v]

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
    to = destinations(step)
    if to is None:
        return [NOTHING] * len(step.results)
    before = [state.groups.on(axes) for axes in step.operands]
    if step.primitive in CONSUMERS:
        _note_consumed(step, before, to, zeros, state)
    rule = ZEROS.get(step.primitive, nothing)
    return [
        _result(rule, _arrive(step.eqn, before, to, zeros, state.groups.on(r)))
        for r in step.results
    ]


def _result(rule: ZeroRule, m: Meeting) -> Zeros:
    """What a rule says, less what is not finite."""
    zeros, bad = rule(m), m.broken | POLES.get(m.eqn.primitive, _no_pole)(m)
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
    eqn: JaxprEqn,
    before: Sequence[Sequence[frozenset[Atom]]],
    to: Destinations,
    zeros: Sequence[Zeros],
    after: Sequence[frozenset[Atom]],
) -> Meeting:
    """What the operands bring to the axes of one result."""
    carried: list[Zeros] = []
    moved: list[Zeros] = []
    bad: set[Pair] = set()
    for groups_of, targets, zero in zip(before, to, zeros, strict=True):
        arrived: dict[tuple[int, Atom], bool] = {}
        for k, groups in enumerate(groups_of):
            for j in targets[k]:
                for group in groups & after[j]:
                    arrived[j, group] = arrived.get((j, group), True) and (k, group) in zero
                    if zero is not EVERYTHING and Broken((k, group)) in zero:
                        bad.add((j, group))
        carried.append(frozenset(arrived))
        kept = frozenset(pair for pair, is_zero in arrived.items() if is_zero)
        whole = zero is EVERYTHING or (isinstance(zero, Signed) and eqn.primitive in READS_SIGN)
        moved.append(zero if whole else kept)
    pairs = frozenset((j, group) for j, groups in enumerate(after) for group in groups)
    return Meeting(eqn=eqn, zeros=moved, carried=carried, pairs=pairs, broken=frozenset(bad))


def _constant(value: Any) -> Zeros:
    """What is known of a constant; nothing of random keys, truth values and traced values."""
    kind = getattr(value, "dtype", None) or np.asarray(value).dtype
    if isinstance(value, jax.core.Tracer) or not jnp.issubdtype(kind, np.number):
        return NOTHING
    array = np.asarray(value)
    if not np.any(array):
        return EVERYTHING
    if jnp.issubdtype(kind, np.complexfloating):
        return NOTHING
    return NOT_BELOW if np.all(array >= 0) else NOT_ABOVE if np.all(array <= 0) else NOTHING


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """One equation seen from the axes of one result."""

    eqn: JaxprEqn
    zeros: list[Zeros]  # per operand, what is zero in it
    carried: list[Zeros]  # per operand, what it carries at all
    pairs: frozenset[Pair]  # all that the result carries
    broken: frozenset[Pair]  # where an operand is not finite


ZeroRule: TypeAlias = Callable[[Meeting], Zeros]


def nothing(m: Meeting) -> Zeros:
    """Nothing is known of the result."""
    del m
    return NOTHING


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


def largest(m: Meeting) -> Zeros:
    """max(0, y) = 0 where y <= 0, which is known of constants only."""
    return _unmoved(m, NOT_ABOVE)


def smallest(m: Meeting) -> Zeros:
    """min(0, y) = 0 where y >= 0, which is known of constants only."""
    return _unmoved(m, NOT_BELOW)


def _unmoved(m: Meeting, harmless: Signed) -> Zeros:
    zeros = [zero for zero in m.zeros if zero is not harmless]
    if not zeros:
        return NOTHING
    if all(zero is EVERYTHING for zero in zeros):
        return EVERYTHING
    return frozenset(pair for pair in m.pairs if all(pair in zero for zero in zeros))


def clamp(m: Meeting) -> Zeros:
    """clamp(low, 0, high) = 0 where low <= 0 <= high, which is known of constants only."""
    low, x, high = m.zeros
    below = low is EVERYTHING or low is NOT_ABOVE
    known = below and (high is EVERYTHING or high is NOT_BELOW)
    return x if known and not isinstance(x, Signed) else NOTHING


def convert(m: Meeting) -> Zeros:
    """Zero stays zero; a sign stays unless the new type has none."""
    unsigned = jnp.issubdtype(m.eqn.params["new_dtype"], np.unsignedinteger)
    return NOTHING if unsigned and isinstance(m.zeros[0], Signed) else m.zeros[0]


def joined(m: Meeting) -> Zeros:
    """A concatenation: zero on a group where every operand that carries it is."""
    if all(zero is EVERYTHING for zero in m.zeros):
        return EVERYTHING
    operands = list(zip(m.zeros, m.carried, strict=True))
    return frozenset(
        pair for pair in m.pairs if all(pair in zero for zero, has in operands if pair in has)
    )


def looked_up(m: Meeting) -> Zeros:
    """What is read out of bounds is filled; a fill of NaN falls under "values are finite"."""
    fill = m.eqn.params["fill_value"]
    filled = fill is not None and np.isfinite(fill) and fill != 0
    return NOTHING if filled else m.zeros[0]


def pooled(m: Meeting) -> Zeros:
    """A window that sees nothing but padding gives infinity."""
    params = m.eqn.params
    for size, dilation, padding in zip(
        params["window_dimensions"], params["window_dilation"], params["padding"], strict=True
    ):
        if max(padding) > (size - 1) * dilation:
            return NOTHING
    return m.zeros[0]


def written(m: Meeting) -> Zeros:
    """Zero where both the operand and the updates are; the indices decide only where."""
    which = UPDATES[m.eqn.primitive]
    operand, updates, carries = m.zeros[0], m.zeros[which], m.carried[which]
    if updates is EVERYTHING and operand is EVERYTHING:
        return EVERYTHING
    return frozenset(
        pair for pair in m.pairs if pair in operand and (pair in updates or pair not in carries)
    )


def padded(m: Meeting) -> Zeros:
    """Padding with zero adds zeros; with anything else it may reach dead channels."""
    if m.zeros[1] is not EVERYTHING:
        return NOTHING
    return EVERYTHING if m.zeros[0] is EVERYTHING else m.zeros[0] | (m.pairs - m.carried[0])


def _no_pole(m: Meeting) -> frozenset[Pair]:
    del m
    return frozenset()


def _pole_of(operand: int) -> Callable[[Meeting], frozenset[Pair]]:
    """Not finite where this operand is zero."""

    def pole(m: Meeting) -> frozenset[Pair]:
        return frozenset(pair for pair in m.pairs if pair in m.zeros[operand])

    return pole


def _negative_power(m: Meeting) -> frozenset[Pair]:
    return _pole_of(0)(m) if m.eqn.params["y"] < 0 else frozenset()


# Where a function of zero is not finite. (0^y is not for y < 0, and of y little is known.)
POLES: dict[Primitive, Callable[[Meeting], frozenset[Pair]]] = {
    **dict.fromkeys((p.digamma_p, p.lgamma_p, p.log_p, p.pow_p, p.rsqrt_p), _pole_of(0)),
    **dict.fromkeys((p.div_p, p.rem_p), _pole_of(1)),
    p.integer_pow_p: _negative_power,
}

# The sign of a constant reaches these rules; in all others it is forgotten.
READS_SIGN: frozenset[Primitive] = frozenset({
    p.broadcast_in_dim_p, jaxprs.clamp_p, p.convert_element_type_p, p.max_p, p.min_p,
})  # fmt: skip

# Which operand a writing primitive writes.
UPDATES: dict[Primitive, int] = {
    **dict.fromkeys(indexing.SCATTERS, 2),
    p.dynamic_update_slice_p: 1,
}

# Where a group that has no destination is summed away.
CONSUMERS: set[Primitive] = {
    *contraction.RULES, *reduction.REDUCTIONS, p.scatter_add_p, jaxprs.scatter_sub_p,
}  # fmt: skip

ZEROS: dict[Primitive, ZeroRule] = {
    **dict.fromkeys(elementwise.ZERO_TO_ZERO, first),
    **dict.fromkeys(elementwise.ZEROS_TO_ZERO, all_of),
    **dict.fromkeys(elementwise.ANY_ZERO_TO_ZERO, any_of),
    **dict.fromkeys(elementwise.NUMERATOR, first),
    p.div_p: ratio,
    p.rem_p: ratio,
    p.max_p: largest,
    p.min_p: smallest,
    p.convert_element_type_p: convert,
    p.integer_pow_p: power,
    p.select_n_p: select,
    jaxprs.clamp_p: clamp,
    p.dot_general_p: any_of,
    p.conv_general_dilated_p: any_of,
    p.concatenate_p: joined,
    p.pad_p: padded,
    p.gather_p: looked_up,
    **dict.fromkeys(UPDATES, written),
    p.scatter_mul_p: first,
    jaxprs.ragged_dot_general_p: any_of,
    jaxprs.stack_p: joined,
    p.fft_p: first,
    p.select_and_scatter_add_p: first,
    p.reduce_window_max_p: pooled,
    p.reduce_window_min_p: pooled,
    **dict.fromkeys(
        (
            p.bitcast_convert_type_p,
            p.broadcast_in_dim_p,
            p.cumsum_p,
            p.dynamic_slice_p,
            p.reduce_max_p,
            p.reduce_min_p,
            p.reduce_sum_p,
            p.reduce_window_sum_p,
            p.reshape_p,
            p.rev_p,
            p.slice_p,
            p.squeeze_p,
            p.transpose_p,
            jaxprs.split_p,
            jaxprs.tile_p,
            jaxprs.unstack_p,
        ),
        first,
    ),
}
