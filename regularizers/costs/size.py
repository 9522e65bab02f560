"""Model size: how many parameters are trained."""

from __future__ import annotations

from regularizers.channels.graph import ChannelGraph, layer_name
from regularizers.costs.cost import Cost, Row, cost_of


def model_size(graph: ChannelGraph) -> Cost:
    """The number of trained parameters (kernels, biases, scales) as a function of widths.

    Example:
        >>> reg.model_size(graph)()  # doctest: +SKIP
    """
    rows = [
        Row(
            layer=layer_name(variable.path),
            detail=variable.path.rsplit("/", 1)[-1],
            coefficient=1.0,
            factors=variable.axes,
        )
        for variable in graph.variables.values()
        if variable.trained
    ]
    return cost_of(graph, "model_size", "parameters", rows)
