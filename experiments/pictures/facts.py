"""What a picture says: the number of groups; a layer's costs, and what fixes its widths."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import regularizers as reg
from experiments.console.display import humanize
from regularizers.channels.graph import ChannelGraph
from regularizers.channels.parts import layer_name


def groups_of(graph: ChannelGraph) -> str:
    """How many channel groups there are."""
    count = len(graph.groups)
    return f"{count} channel group{'' if count == 1 else 's'}"


def facts_of(graph: ChannelGraph) -> Mapping[str, list[str]]:
    """Lines for each layer, by its name.

    Args:
        graph: what `trace_channels` found.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for cost, unit in ((reg.flops(graph), "FLOP"), (reg.model_size(graph), "parameters")):
        paid: dict[str, float] = defaultdict(float)
        for line in cost.table():
            paid[line.layer] += line.cost
        for layer, value in paid.items():
            share = f" ({value / cost.seed:.1%})" if cost.seed else ""
            found[layer].append(f"{humanize(value)} {unit}{share}")
    for pin in graph.pins():
        where = f", {pin.source}" if pin.source else ""
        for axis in pin.axes:
            if axis.path:
                name = layer_name(axis.path)
                said = f"fixed: axis {axis.axis} of {axis.path}, {pin.reason}{where}"
                found[name].append(said)
    return found
