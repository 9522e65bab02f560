"""Reductions, sliding windows, and scans along an axis."""

from __future__ import annotations

from collections.abc import Callable

from regularizers.channels.coupling.rule import Rule, out_shape, together
from regularizers.channels.jaxprs import JaxprEqn, Primitive, shape_of
from regularizers.channels.jaxprs import primitives as p
from regularizers.channels.terms import Axes, Solver, Term


def reduce_sum(solver: Solver, eqn: JaxprEqn, operand: Axes) -> list[Axes]:
    """The axes in `axes` go, and stay free: a channel that is exactly zero adds nothing."""
    del solver
    return [tuple(t for k, t in enumerate(operand) if k not in eqn.params["axes"])]


def reduced_axes(eqn: JaxprEqn) -> tuple[int, ...]:
    """The axes that a reduction sums away."""
    return tuple(eqn.params["axes"] if "axes" in eqn.params else eqn.params["dimensions"])


def reduce_pinning(reason: str) -> Rule:
    """The rule of a reduction that a zero would change: the axes in `axes` are pinned."""

    def reduce(solver: Solver, eqn: JaxprEqn, *operands: Axes) -> list[Axes]:
        """The axes in `axes` are pinned and go; the others carry."""
        axes = reduced_axes(eqn)
        arrays = [operand for operand in operands if operand]  # initial values are scalars
        for operand in arrays:
            for k in axes:
                solver.pin(operand[k], reason)
        kept = [tuple(t for k, t in enumerate(o) if k not in axes) for o in arrays]
        return [together(solver, kept, out_shape(eqn))] * len(eqn.outvars)

    return reduce


def window(solver: Solver, eqn: JaxprEqn, operand: Axes, *_: Axes) -> list[Axes]:
    """An axis whose window is 1, unpadded and without stride carries; the others are pinned.

    Reads `window_dimensions`, `window_strides`, `padding`, `base_dilation`.
    """
    params, reason = eqn.params, "spatial axis of a pooling window"
    axes: list[Term] = []
    for term, n, *trivial in zip(
        operand,
        out_shape(eqn),
        params["window_dimensions"],
        params["window_strides"],
        params["base_dilation"],
        params["padding"],
        strict=True,
    ):
        if trivial == [1, 1, 1, (0, 0)]:
            axes.append(term)
        else:
            solver.pin(term, reason)
            axes.append(solver.fixed(n, reason))
    return [tuple(axes)]


def gathered_window(solver: Solver, eqn: JaxprEqn, *operands: Axes) -> list[Axes]:
    """The derivative of a pooling: it picks one position of every window.

    As in `window`; both operands and the result have the same axes there. Reads
    `window_dimensions`, `window_strides`, `padding`.
    """
    params, reason = eqn.params, "spatial axis of a pooling window"
    arrays = [axes for axes in operands if axes]  # the initial value is a scalar
    result: list[Term] = []
    for k, n in enumerate(out_shape(eqn)):
        steps = params["window_dimensions"][k], params["window_strides"][k], params["padding"][k]
        for axes in arrays:
            if steps == (1, 1, (0, 0)):
                solver.unify(arrays[0][k], axes[k])
            else:
                solver.pin(axes[k], reason)
        trivial = steps == (1, 1, (0, 0))
        result.append(arrays[0][k] if trivial else solver.fixed(n, reason))
    return [tuple(result)]


def along(param: str, reason: str) -> Callable[..., list[Axes]]:
    """The rule of an operation along one axis, which it pins; all other axes carry."""

    def rule(solver: Solver, eqn: JaxprEqn, *operands: Axes) -> list[Axes]:
        """The axis named by the parameter is pinned; all operands and results are alike."""
        k = eqn.params[param]
        shared = together(solver, operands, shape_of(eqn.invars[0]))
        solver.pin(shared[k], reason)
        results = []
        for i in range(len(eqn.outvars)):
            length = out_shape(eqn, i)[k]
            own = shared[k] if length == shared[k].size else solver.fixed(length, reason)
            results.append((*shared[:k], own, *shared[k + 1 :]))
        return results

    return rule


def top_k(solver: Solver, eqn: JaxprEqn, operand: Axes, *rest: Axes) -> list[Axes]:
    """The searched axis is pinned; all other axes carry."""
    del rest
    k = eqn.params.get("axis", eqn.params.get("reduction_dimension", -1)) % len(operand)
    solver.pin(operand[k], "searched by top_k")
    kept = solver.fixed(out_shape(eqn)[k], "searched by top_k")
    return [(*operand[:k], kept, *operand[k + 1 :])] * 2


REDUCTIONS: dict[Primitive, Rule] = {
    p.reduce_sum_p: reduce_sum,
    p.reduce_max_p: reduce_pinning("a maximum is taken over it, which a zero could win"),
    p.reduce_min_p: reduce_pinning("a minimum is taken over it, which a zero could win"),
    p.reduce_prod_p: reduce_pinning("a product is taken over it, which a zero would end"),
    p.reduce_and_p: reduce_pinning("reduced by logical and"),
    p.reduce_or_p: reduce_pinning("reduced by logical or"),
    p.reduce_xor_p: reduce_pinning("reduced by logical xor"),
    p.reduce_p: reduce_pinning("reduced by a function of the user's own"),
    p.argmax_p: reduce_pinning("searched by argmax"),
    p.argmin_p: reduce_pinning("searched by argmin"),
}

RULES: dict[Primitive, Rule] = {
    **REDUCTIONS,
    p.reduce_window_p: window,
    p.reduce_window_max_p: window,
    p.reduce_window_min_p: window,
    p.reduce_window_sum_p: window,
    p.cumsum_p: along("axis", "summed up along it"),
    p.cumprod_p: along("axis", "multiplied up along it"),
    p.cummax_p: along("axis", "a running maximum is taken along it"),
    p.cummin_p: along("axis", "a running minimum is taken along it"),
    p.cumlogsumexp_p: along("axis", "summed up along it"),
    p.sort_p: along("dimension", "sorted along it"),
    p.top_k_p: top_k,
    p.approx_top_k_p: top_k,
    p.select_and_gather_add_p: gathered_window,
    p.select_and_scatter_add_p: gathered_window,
}
