"""Reductions, sliding windows, and scans along an axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from regularizers.primitives.coupling import Rule, out_shape, together
from regularizers.primitives.flow import same
from regularizers.primitives.jaxprs import JaxprEqn, Primitive, shape_of
from regularizers.primitives.jaxprs import primitives as p
from regularizers.primitives.record import ANY, FREE, Params, Record, again, reads
from regularizers.primitives.signs import (
    NEGATIVE,
    NOUGHT,
    POSITIVE,
    Sign,
    SignRule,
    anything,
    kept,
    multiplied_up,
    not_below,
    pooled,
    summed,
    window_summed,
)
from regularizers.primitives.terms import Axes, Solver, Term


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


def reduce_extreme(reason: str, harmless: Sign) -> Rule:
    """The rule of a maximum or minimum: as of a sum, where a zero cannot win.

    Args:
        reason: why its axes are pinned where it could.
        harmless: the signs of numbers among which it cannot: not negative ones, for a maximum.
    """
    pinned = reduce_pinning(reason)

    def reduce(solver: Solver, eqn: JaxprEqn, operand: Axes) -> list[Axes]:
        """The axes in `axes` go; they are pinned if a zero could win, or none was there before."""
        sign = solver.facts[0].sign if solver.facts else NEGATIVE | POSITIVE
        if sign & NOUGHT and not sign & ~(harmless | NOUGHT):
            return reduce_sum(solver, eqn, operand)
        return list(pinned(solver, eqn, operand))

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


def _reduces(couple: Rule, sign: SignRule = anything, **params: Any) -> Record:
    return Record(
        couple=couple,
        params=reads("axes", "out_sharding", **params),
        sign=sign,
        sums=True,
        price=FREE,
        emission=again,
    )


_FUNCTION = reads("computation", "dimensions", "jaxpr")
REDUCTIONS: dict[Primitive, Record] = {
    p.reduce_sum_p: _reduces(reduce_sum, summed),
    p.reduce_max_p: _reduces(
        reduce_extreme("a maximum is taken over it, which a zero could win", POSITIVE), kept
    ),
    p.reduce_min_p: _reduces(
        reduce_extreme("a minimum is taken over it, which a zero could win", NEGATIVE), kept
    ),
    p.reduce_prod_p: _reduces(
        reduce_pinning("a product is taken over it, which a zero would end"), multiplied_up
    ),
    p.reduce_and_p: _reduces(reduce_pinning("reduced by logical and")),
    p.reduce_or_p: _reduces(reduce_pinning("reduced by logical or")),
    p.reduce_xor_p: _reduces(reduce_pinning("reduced by logical xor")),
    p.reduce_p: _reduces(reduce_pinning("reduced by a function of the user's own"), **_FUNCTION),
    p.argmax_p: _reduces(reduce_pinning("searched by argmax"), not_below, index_dtype=ANY),
    p.argmin_p: _reduces(reduce_pinning("searched by argmin"), not_below, index_dtype=ANY),
}


def _carries(couple: Rule, params: Params, sign: SignRule = anything) -> Record:
    return Record(couple=couple, params=params, sign=sign, price=FREE, emission=again, flow=same)


_WINDOW = reads(
    "base_dilation", "padding", "window_dilation", "window_dimensions", "window_strides"
)
_PICKED = {**_WINDOW, **reads("select_prim")}
_ALONG = reads("axis", "reverse")
_TOP = reads("axis", "is_stable", "k")
_APPROXIMATE = reads(
    "aggregate_to_topk", "is_max_k", "k", "recall_target", "reduction_dimension",
    "reduction_input_size_override",
)  # fmt: skip

RECORDS: dict[Primitive, Record] = {
    **REDUCTIONS,
    p.reduce_window_p: _carries(window, {**_WINDOW, **reads("consts", "jaxpr")}),
    p.reduce_window_max_p: _carries(window, _WINDOW, pooled),
    p.reduce_window_min_p: _carries(window, _WINDOW, pooled),
    p.reduce_window_sum_p: _carries(window, _WINDOW, window_summed),
    p.cumsum_p: _carries(along("axis", "summed up along it"), _ALONG, summed),
    p.cumprod_p: _carries(along("axis", "multiplied up along it"), _ALONG),
    p.cummax_p: _carries(along("axis", "a running maximum is taken along it"), _ALONG, kept),
    p.cummin_p: _carries(along("axis", "a running minimum is taken along it"), _ALONG, kept),
    p.cumlogsumexp_p: _carries(along("axis", "summed up along it"), _ALONG),
    p.sort_p: _carries(
        along("dimension", "sorted along it"), reads("dimension", "is_stable", "num_keys")
    ),
    p.top_k_p: _carries(top_k, _TOP),
    p.approx_top_k_p: _carries(top_k, _APPROXIMATE),
    p.select_and_gather_add_p: _carries(gathered_window, _PICKED),
    p.select_and_scatter_add_p: _carries(gathered_window, _PICKED, window_summed),
}
