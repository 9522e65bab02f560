"""What each fixed width costs: how much more would go if it could be halved, as all groups are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from regularizers.channels.graph import ChannelGraph
from regularizers.channels.parts import PinGroup, layer_name
from regularizers.costs.cost import Cost
from regularizers.primitives import axes as ax

# Reasons of axes that nobody wants to be narrower.
RIGHT = (
    "axis of an input",
    "axis of an output",
    "spatial axis of a convolution",
    "spatial axis of a convolution kernel",
    "spatial axis of a pooling window",
    "indexed (the vocabulary axis of a gather)",
    "holds an index vector",
    "size 1",
    "size 0",
)


@dataclass(frozen=True, kw_only=True)
class Freed:
    """A fixed width, and what it would be worth to free it.

    Attributes:
        pin: the reason, the place and the axes.
        flops: that would go beside those that go when all groups are halved, a share of the seed's.
        parameters: likewise.
    """

    pin: PinGroup
    flops: float
    parameters: float

    @property
    def right(self) -> bool:
        """Whether the width is as it should be."""
        return self.pin.reason in RIGHT


def freed(
    graph: ChannelGraph, flops: Cost, parameters: Cost, pins: Sequence[PinGroup]
) -> list[Freed]:
    """All fixed widths, those that cost most first.

    With every group at half of its width (rounded up), a variable of which k axes are pinned for
    one reason would lose 1 - 2^-k of what is left of it; so would the FLOPs of its layer.
    """
    half = {name: -(-width // 2) for name, width in graph.widths.items()}
    layers = {row.layer: row.cost for row in flops.table(half)}
    kernels = {operation.kernel for operation in graph.operations if operation.kernel}
    found = []
    for pin in pins:
        counts = Counter(axis.path for axis in pin.axes)
        less = {path: 1 - 0.5**count for path, count in counts.items() if path in graph.variables}
        weights = work = 0.0
        for path, share in less.items():
            variable = graph.variables[path]
            if variable.trained:
                weights += share * math.prod(float(ax.size(a, half)) for a in variable.axes)
            if path in kernels:
                work += share * layers.get(layer_name(path), 0.0)
        over_flops, over_parameters = work / (flops() or 1.0), weights / (parameters() or 1.0)
        found.append(Freed(pin=pin, flops=float(over_flops), parameters=float(over_parameters)))
    return sorted(found, key=lambda one: -max(one.flops, one.parameters))
