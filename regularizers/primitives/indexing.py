"""Reading and writing at computed positions."""

from __future__ import annotations

from typing import Any

import numpy as np

from regularizers.primitives.coupling import Rule, out_shape
from regularizers.primitives.flow import same
from regularizers.primitives.jaxprs import JaxprEqn, Primitive, scatter_sub_p, shape_of
from regularizers.primitives.jaxprs import primitives as p
from regularizers.primitives.orders import Order, is_order
from regularizers.primitives.record import FREE, Record, Sizes, again, reads
from regularizers.primitives.signs import (
    SignRule,
    added_into,
    kept,
    looked_up,
    rooted,
    subtracted_from,
    written,
)
from regularizers.primitives.step import Destinations, Step
from regularizers.primitives.terms import Axes, Solver, Term, permuted


def gather(solver: Solver, eqn: JaxprEqn, operand: Axes, indices: Axes) -> list[Axes]:
    """Axes read whole carry; axes that are indexed are pinned; the indices' axes carry.

    Example: embedding [V, D] at ids [N, T, 1] -> [N, T, D] pins V and carries D. An axis of which
    every position is read once, at constant positions, is in another order.
    Reads `dimension_numbers`, `slice_sizes`.
    """
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    order = _constant_order(solver, eqn)
    if order is not None:
        (k,) = numbers.collapsed_slice_dims
        solver.moves = {k: order}
        axes = [term for i, term in enumerate(operand) if i != k]
        axes.insert(indexed(eqn), permuted(operand[k], order))
        return [tuple(axes)]
    solver.pin(indices[-1], "holds an index vector")
    for i, j in zip(
        numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True
    ):
        solver.unify(operand[i], indices[j])
    window: list[Term] = []
    for k, (term, n) in enumerate(zip(operand, sizes, strict=True)):
        if k in numbers.operand_batching_dims:
            continue
        if n == term.size and k not in numbers.collapsed_slice_dims:
            window.append(term)
            continue
        solver.pin(term, "indexed (the vocabulary axis of a gather)")
        if k not in numbers.collapsed_slice_dims:
            window.append(solver.fixed(n, "a stretch read at a computed position"))
    inner, outer = iter(window), iter(indices[:-1])
    rank = len(out_shape(eqn))
    return [tuple(next(inner if k in numbers.offset_dims else outer) for k in range(rank))]


def indexed(eqn: JaxprEqn) -> int:
    """The axis of the result that the indices have, where they have one."""
    (axis,) = set(range(len(out_shape(eqn)))) - set(eqn.params["dimension_numbers"].offset_dims)
    return axis


def _constant_order(solver: Solver, eqn: JaxprEqn) -> Order | None:
    """The order of one axis that a gather at constant positions is, if it is no more than that."""
    numbers, sizes, shape = (
        eqn.params["dimension_numbers"], eqn.params["slice_sizes"], shape_of(eqn.invars[0]),
    )  # fmt: skip
    constant = solver.facts[1].constant if solver.facts else None
    along = numbers.collapsed_slice_dims
    if (
        constant is None
        or len(along) != 1
        or numbers.start_index_map != along
        or numbers.operand_batching_dims
        or shape_of(eqn.invars[1]) != (shape[along[0]], 1)
        or any(n != shape[k] for k, n in enumerate(sizes) if k not in along)
    ):
        return None
    positions = np.asarray(constant())[:, 0]
    return tuple(positions.tolist()) if is_order(positions, shape[along[0]]) else None


def dynamic_slice(solver: Solver, eqn: JaxprEqn, operand: Axes, *_: Axes) -> list[Axes]:
    """Axes read whole carry; the others are pinned. Reads `slice_sizes`."""
    reason = "a stretch read at a computed position"
    axes: list[Term] = []
    for term, n in zip(operand, out_shape(eqn), strict=True):
        if term.size != n:
            solver.pin(term, reason)
        axes.append(term if term.size == n else solver.fixed(n, reason))
    return [tuple(axes)]


def dynamic_update_slice(
    solver: Solver, eqn: JaxprEqn, operand: Axes, update: Axes, *_: Axes
) -> list[Axes]:
    """Axes written whole are the same width; the others are pinned."""
    del eqn
    reason = "a stretch written at a computed position"
    for term, new in zip(operand, update, strict=True):
        if term.size == new.size:
            solver.unify(term, new)
        else:
            solver.pin(term, reason)
            solver.pin(new, reason)
    return [operand]


def scatter_axes(eqn: JaxprEqn) -> tuple[dict[int, int], dict[int, int]]:
    """For the axes of the updates of a scatter: their axes of the operand, and of the indices.

    Reads `dimension_numbers`.
    """
    numbers = eqn.params["dimension_numbers"]
    operand, indices, updates = (range(len(shape_of(v))) for v in eqn.invars)
    batching = numbers.operand_batching_dims
    window = [k for k in operand if k not in (*numbers.inserted_window_dims, *batching)]
    to_operand = dict(zip(numbers.update_window_dims, window, strict=True))
    scattered = [k for k in updates if k not in to_operand]
    to_indices = dict(zip(scattered, indices, strict=False))
    at = dict(zip(numbers.scatter_indices_batching_dims, batching, strict=True))
    to_operand |= {k: at[i] for k, i in to_indices.items() if i in at}
    return to_operand, to_indices


def scattered(step: Step) -> Destinations:
    """The axes of the updates become those of the operand; the indices only say where."""
    operand, indices, updates = step.operands
    to, _ = scatter_axes(step.eqn)
    return [
        [(k,) for k in range(len(operand))],
        [()] * len(indices),
        [(to[k],) if k in to else () for k in range(len(updates))],
    ]


def scatter_rule(*, adds: bool) -> Rule:
    """The rule of a scatter; where values are added up, one that is zero adds nothing."""

    def scatter(
        solver: Solver, eqn: JaxprEqn, operand: Axes, indices: Axes, updates: Axes
    ) -> list[Axes]:
        """Axes written whole are the same; those written at computed positions are pinned.

        Example: updates [T, D] added to [N, D] at rows [T, 1] ties the D's and pins N.
        """
        reason = "written at computed positions (the indexed axis of a scatter)"
        solver.pin(indices[-1], "holds an index vector")
        to_operand, to_indices = scatter_axes(eqn)
        whole = set()
        for k, to in to_operand.items():
            if updates[k].size == operand[to].size:
                whole.add(to)
                solver.unify(updates[k], operand[to])
            else:
                solver.pin(updates[k], reason)
        for k, term in enumerate(operand):
            if k not in whole:
                solver.pin(term, reason)
        for k, to in to_indices.items():
            solver.unify(updates[k], indices[to])
            if not adds and k not in to_operand:
                solver.pin(updates[k], "a zero written there would overwrite")
        return [operand]

    return scatter


def whole_slices(step: Step, sizes: Sizes) -> dict[str, Any]:
    """`slice_sizes` of axes that are read whole."""
    seed = step.eqn.params["slice_sizes"]
    return {
        "slice_sizes": tuple(
            sizes.of(term) if n == term.size else n
            for term, n in zip(step.operands[0], seed, strict=True)
        )
    }


def _writes(sign: SignRule, *, adds: bool = False) -> Record:
    return Record(
        couple=scatter_rule(adds=adds),
        params=reads(
            "dimension_numbers", "indices_are_sorted", "mode", "unique_indices", "update_consts",
            "update_jaxpr",
        ),
        sign=sign,
        sums=adds,
        price=FREE,
        emission=again,
        flow=scattered,
    )  # fmt: skip


SCATTERS: dict[Primitive, Record] = {
    p.scatter_add_p: _writes(added_into, adds=True),
    p.scatter_max_p: _writes(written(2)),
    p.scatter_min_p: _writes(written(2)),
    p.scatter_mul_p: _writes(rooted),
    p.scatter_p: _writes(written(2)),
    scatter_sub_p: _writes(subtracted_from, adds=True),
}

RECORDS: dict[Primitive, Record] = {
    **SCATTERS,
    p.dynamic_slice_p: Record(
        couple=dynamic_slice,
        params=reads("slice_sizes"),
        sign=kept,
        price=FREE,
        emission=whole_slices,
        flow=same,
    ),
    p.dynamic_update_slice_p: Record(
        couple=dynamic_update_slice,
        params=reads(),
        sign=written(1),
        price=FREE,
        emission=again,
        flow=same,
    ),
    p.gather_p: Record(
        couple=gather,
        params=reads(
            "dimension_numbers", "fill_value", "indices_are_sorted", "mode", "slice_sizes",
            "unique_indices",
        ),
        sign=looked_up,
        price=FREE,
        emission=whole_slices,
    ),
}  # fmt: skip
