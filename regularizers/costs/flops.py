"""FLOPs of matrix products and convolutions: 2 per multiply-add, padding counted.

Everything else (elementwise, pooling, reductions, data movement) is counted as free, as MorphNet
counts. XLA's own `cost_analysis` skips multiply-adds with padding, so that it gives less under
SAME. What a `scan` runs counts as often as it runs, a `cond` by its dearest branch, and a `while`
once, since nobody knows how often it runs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import TypeAlias

from regularizers.channels.axes import Axis, make_product, size
from regularizers.channels.graph import ChannelGraph
from regularizers.channels.jaxprs import Primitive, ragged_dot_general_p
from regularizers.channels.jaxprs import primitives as p
from regularizers.channels.parts import Operation
from regularizers.costs.cost import Cost, Line, multilinear

Factors: TypeAlias = tuple[Axis, ...]
FLOPS_PER_MULTIPLY_ADD = 2.0


def flops(graph: ChannelGraph) -> Cost:
    """FLOPs of one call at the traced batch size, as a function of widths.

    Example:
        >>> reg.flops(graph)({"Conv_0": 8})  # doctest: +SKIP
    """
    addends = [(line_of(operation), flop_factors(operation)) for operation in dearest(graph)]
    return multilinear(graph.widths, "flops", "FLOP", addends)


def line_of(operation: Operation) -> Line:
    """What an operation is called in tables."""
    op, kernel, _, _ = operation_name(operation)
    return Line(layer=operation.layer, detail=" ".join([op, "x".join(map(str, kernel))]).strip())


def dearest(graph: ChannelGraph) -> list[Operation]:
    """The operations that run if every `cond` takes its dearest branch, at the seed's widths."""
    chosen = dearest_branches(graph)
    return [o for o in graph.operations if all(chosen[c] == b for c, b in o.branches)]


def dearest_branches(graph: ChannelGraph) -> dict[int, int]:
    """For each `cond` with an operation in it, the branch with the most FLOPs in the seed."""
    widths = graph.widths
    kept = list(graph.operations)
    best: dict[int, int] = {}
    for depth in range(max((len(o.branches) for o in kept), default=0), 0, -1):  # innermost first
        totals: Counter[tuple[int, int]] = Counter()
        for operation in kept:
            if len(operation.branches) >= depth:
                coefficient, factors = flop_factors(operation)
                price = coefficient * math.prod(size(axis, widths) for axis in factors)
                totals[operation.branches[depth - 1]] += int(price)
        found: dict[int, int] = {}
        for (cond, branch), total in totals.items():
            if cond not in found or total > totals[cond, found[cond]]:
                found[cond] = branch
        kept = [
            operation
            for operation in kept
            if len(operation.branches) < depth
            or found[operation.branches[depth - 1][0]] == operation.branches[depth - 1][1]
        ]
        best |= found
    return best


def flop_factors(operation: Operation) -> tuple[float, Factors]:
    """The FLOPs of one operation: a coefficient, and the axes whose sizes it is multiplied by."""
    return FLOPS_PER_MULTIPLY_ADD * operation.count, PRICES[operation.primitive](operation)


def dot_general(operation: Operation) -> Factors:
    """Every output element sums over the contracted axes."""
    (lhs_sum, _), _ = operation.params["dimension_numbers"]
    return (*operation.out, *(operation.lhs[k] for k in lhs_sum))


def conv_general_dilated(operation: Operation) -> Factors:
    """Every output element sums over the kernel's window and input channels.

    Along an axis with `lhs_dilation` (a transposed convolution) only every d-th tap meets an input
    element: there the input's positions count instead of the output's.
    """
    numbers = operation.params["dimension_numbers"]
    out = list(operation.out)
    for at, source, dilation in zip(
        numbers.out_spec[2:], numbers.lhs_spec[2:], operation.params["lhs_dilation"], strict=True
    ):
        if dilation > 1:
            out[at] = operation.lhs[source]
    return (*out, *(operation.rhs[k] for k in numbers.rhs_spec[1:]))


def ragged_dot_general(operation: Operation) -> Factors:
    """Every row meets one kernel."""
    numbers = operation.params["ragged_dot_dimension_numbers"]
    (lhs_sum, _), _ = numbers.dot_dimension_numbers
    return (*operation.out, *(operation.lhs[k] for k in lhs_sum))


# What each contraction costs, in multiply-adds. All other primitives are free.
PRICES: dict[Primitive, Callable[[Operation], Factors]] = {
    p.dot_general_p: dot_general,
    p.conv_general_dilated_p: conv_general_dilated,
    ragged_dot_general_p: ragged_dot_general,
}


def operation_name(operation: Operation) -> tuple[str, tuple[int, ...], Axis, Axis]:
    """For people: kind of operation, kernel window, input channels, output channels."""
    if operation.primitive is ragged_dot_general_p:
        numbers = operation.params["ragged_dot_dimension_numbers"]
        (lhs_sum, rhs_sum), (_, rhs_batch) = numbers.dot_dimension_numbers
        gone = (*rhs_sum, *rhs_batch, *numbers.rhs_group_dimensions)
        free = [a for k, a in enumerate(operation.rhs) if k not in gone]
        return "ragged", (), make_product([operation.lhs[k] for k in lhs_sum]), make_product(free)
    if operation.primitive is p.dot_general_p:
        (lhs_sum, rhs_sum), (_, rhs_batch) = operation.params["dimension_numbers"]
        free = [a for k, a in enumerate(operation.rhs) if k not in (*rhs_sum, *rhs_batch)]
        kind = "dense" if operation.kernel else "product"
        return kind, (), make_product([operation.lhs[k] for k in lhs_sum]), make_product(free)
    numbers = operation.params["dimension_numbers"]
    window = tuple(int(operation.rhs[k]) for k in numbers.rhs_spec[2:])
    groups = operation.params["feature_group_count"]
    into, out = operation.lhs[numbers.lhs_spec[1]], operation.out[numbers.out_spec[1]]
    if any(d > 1 for d in operation.params["lhs_dilation"]):
        kind = "transposed conv"
    elif groups == 1:
        kind = "conv"
    else:
        kind = "depthwise conv" if operation.rhs[numbers.rhs_spec[1]] == 1 else "grouped conv"
    return kind, window, into, out
