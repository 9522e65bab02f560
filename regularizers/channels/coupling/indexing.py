"""Reading and writing at computed positions."""

from __future__ import annotations

from regularizers.channels.coupling.rule import Rule, out_shape
from regularizers.channels.jaxprs import JaxprEqn, Primitive
from regularizers.channels.jaxprs import primitives as p
from regularizers.channels.terms import Axes, Solver, Term


def gather(solver: Solver, eqn: JaxprEqn, operand: Axes, indices: Axes) -> list[Axes]:
    """Axes read whole carry; axes that are indexed are pinned; the indices' axes carry.

    Example: embedding [V, D] at ids [N, T, 1] -> [N, T, D] pins V and carries D.
    Reads `dimension_numbers`, `slice_sizes`.
    """
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
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


RULES: dict[Primitive, Rule] = {
    p.dynamic_slice_p: dynamic_slice,
    p.dynamic_update_slice_p: dynamic_update_slice,
    p.gather_p: gather,
}
