"""FLOPs of matrix products and convolutions: 2 per multiply-add, padding counted.

Everything else (elementwise, pooling, reductions, data movement) is counted as free, as MorphNet
counts. XLA's own `cost_analysis` skips multiply-adds with padding, so that it gives less under
SAME. What a `scan` runs counts as often as it runs, a `cond` by its dearest branch, and a `while`
once, since nobody knows how often it runs.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter

from regularizers.channels.graph import GRAPH, ChannelGraph
from regularizers.checks import checked
from regularizers.costs.cost import Cost, Line, multilinear
from regularizers.primitives.axes import Axis, size
from regularizers.primitives.record import Factors, Price
from regularizers.primitives.step import Operation
from regularizers.primitives.table import RECORDS

FLOPS_PER_MULTIPLY_ADD = 2.0


@checked(graph=GRAPH)
def flops(graph: ChannelGraph) -> Cost:
    """FLOPs of one call at the traced batch size, as a function of widths.

    Example:
        >>> reg.flops(graph)({"Conv_0": 8})  # doctest: +SKIP
    """
    addends = [(line_of(operation), flop_factors(operation)) for operation in dearest(graph)]
    addends += [(line, (0.0, ())) for line in uncounted(graph)]
    return multilinear(graph.widths, "flops", "FLOP", addends)


def uncounted(graph: ChannelGraph) -> list[Line]:
    """A line for all work whose price nobody said, so that it is not free without a word.

    Warns of each such primitive, which Python shows once: wherever it is met, it is this line.
    """
    for name in dict.fromkeys(name for _, name in graph.uncounted):
        warnings.warn(
            f"{name} has no price: its work is not counted (reg.couples takes one for a primitive "
            "of your own)",
            stacklevel=1,
        )
    return [
        Line(layer=layer or name, detail=f"{name}, not counted") for layer, name in graph.uncounted
    ]


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
    return FLOPS_PER_MULTIPLY_ADD * operation.count, _price(operation).factors(operation)


def operation_name(operation: Operation) -> tuple[str, tuple[int, ...], Axis, Axis]:
    """For people: kind of operation, kernel window, input channels, output channels."""
    price = _price(operation)
    if price.name is not None:
        return price.name(operation)
    kind = operation.primitive.name.replace("_", " ")
    return kind, (), operation.lhs[-1], operation.out[-1]


def _price(operation: Operation) -> Price:
    price = RECORDS[operation.primitive].price
    assert isinstance(price, Price)  # that is what makes an operation
    return price
