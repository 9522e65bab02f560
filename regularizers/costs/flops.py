"""FLOPs of matrix products and convolutions: 2 per multiply-add, padding counted.

Everything else (elementwise, pooling, reductions, data movement) is counted as free, as MorphNet
counts. XLA's own `cost_analysis` skips multiply-adds with padding, so that it gives less under
SAME.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from regularizers.channels.axes import Axis, make_product
from regularizers.channels.graph import ChannelGraph, Operation
from regularizers.channels.jaxprs import Primitive
from regularizers.channels.jaxprs import primitives as p
from regularizers.costs.cost import Cost, Row, cost_of

Factors: TypeAlias = tuple[Axis, ...]
FLOPS_PER_MULTIPLY_ADD = 2.0


def flops(graph: ChannelGraph) -> Cost:
    """FLOPs of one call at the traced batch size, as a function of widths.

    Example:
        >>> reg.flops(graph)({"Conv_0": 8})  # doctest: +SKIP
    """
    rows = []
    for operation in graph.operations:
        coefficient, factors = flop_factors(operation)
        op, kernel, _, _ = operation_name(operation)
        detail = " ".join([op, "x".join(map(str, kernel))]).strip()
        rows.append(
            Row(layer=operation.layer, detail=detail, coefficient=coefficient, factors=factors)
        )
    return cost_of(graph, "flops", "FLOP", rows)


def flop_factors(operation: Operation) -> tuple[float, Factors]:
    """The FLOPs of one operation: a coefficient, and the axes whose sizes it is multiplied by."""
    return FLOPS_PER_MULTIPLY_ADD, PRICES[operation.primitive](operation)


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


# What each contraction costs, in multiply-adds. All other primitives are free.
PRICES: dict[Primitive, Callable[[Operation], Factors]] = {
    p.dot_general_p: dot_general,
    p.conv_general_dilated_p: conv_general_dilated,
}


def operation_name(operation: Operation) -> tuple[str, tuple[int, ...], Axis, Axis]:
    """For people: kind of operation, kernel window, input channels, output channels."""
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
