"""Model size: how many parameters are trained, or the bytes that they take."""

from __future__ import annotations

import jax.numpy as jnp

from regularizers.channels.graph import GRAPH, ChannelGraph
from regularizers.channels.parts import layer_name
from regularizers.checks import DTYPE, checked
from regularizers.costs.cost import Cost, Line, multilinear


@checked(graph=GRAPH, dtype=DTYPE)
def model_size(graph: ChannelGraph, dtype: str | None = None) -> Cost:
    """The number of trained parameters (kernels, biases, scales) as a function of widths.

    Args:
        graph: the channel graph of the network.
        dtype: count the bytes of all parameters in this type instead, e.g. `"int8"`; `"own"`
            counts each in its own.

    Raises:
        TypeError: if there is no such type.

    Example:
        >>> reg.model_size(graph)(), reg.model_size(graph, "int8")()  # doctest: +SKIP
    """

    def bytes_each(own: str) -> float:
        return jnp.dtype(own if dtype == "own" else dtype).itemsize

    addends = [
        (
            Line(layer=layer_name(variable.path), detail=variable.path.rsplit("/", 1)[-1]),
            (1.0 if dtype is None else bytes_each(variable.dtype), variable.axes),
        )
        for variable in graph.variables.values()
        if variable.trained
    ]
    if dtype is None:
        return multilinear(graph.widths, "model_size", "parameters", addends)
    return multilinear(graph.widths, f"model_size_{dtype}", "B", addends)
