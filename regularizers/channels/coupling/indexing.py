"""Reading and writing at computed positions."""

from __future__ import annotations

from regularizers.channels.coupling.rule import Rule, out_shape
from regularizers.channels.jaxprs import JaxprEqn, Primitive, scatter_sub_p, shape_of
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


SCATTERS: dict[Primitive, Rule] = {
    p.scatter_add_p: scatter_rule(adds=True),
    p.scatter_max_p: scatter_rule(adds=False),
    p.scatter_min_p: scatter_rule(adds=False),
    p.scatter_mul_p: scatter_rule(adds=False),
    p.scatter_p: scatter_rule(adds=False),
    scatter_sub_p: scatter_rule(adds=True),
}

RULES: dict[Primitive, Rule] = {
    **SCATTERS,
    p.dynamic_slice_p: dynamic_slice,
    p.dynamic_update_slice_p: dynamic_update_slice,
    p.gather_p: gather,
}
