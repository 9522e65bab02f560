"""Channel graphs of factorized networks, and what they and their kernels cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax

from morph.kernels.evaluate import evaluate
from morph.kernels.factorized import STACK
from morph.kernels.planned import PlannedKernel
from morph.kernels.tensorized import contracted
from morph.tensorize.options import Ladder
from regularizers.channels.graph import ChannelGraph
from regularizers.channels.parts import layer_name
from regularizers.channels.trace import trace_channels
from regularizers.costs.cost import SEEDS, Cost, weighted
from regularizers.named import cost_named
from regularizers.primitives.jaxprs import ClosedJaxpr, dtype_of, shape_of

Costing = str | Callable[[ChannelGraph], Cost]


def shares(
    graph: ChannelGraph, paths: Collection[str], seed: Cost, cost: Cost
) -> dict[str, tuple[float, float]]:
    """What each kernel costs, (dense, factorized).

    Args:
        graph: of the dense network.
        paths: the kernels that are factorized.
        seed: the cost of the dense network.
        cost: of the network in which they are factorized.
    """
    booked, now = by_layer(seed), by_layer(cost)
    found = {}
    for path in paths:
        layer = layer_name(path)
        together = [other for other in paths if layer_name(other) == layer]
        share = size_of(graph, [path]) / size_of(graph, together)
        kept = now.get(layer, 0.0) if layer != core_layer(path) else 0.0  # outside of any layer
        found[path] = share * (booked.get(layer, 0.0) - kept), now.get(core_layer(path), 0.0)
    return found


def size_of(graph: ChannelGraph, paths: Sequence[str]) -> int:
    """How many numbers some variables hold."""
    return sum(math.prod(graph.variables[path].shape) for path in paths)


def core_layer(path: str) -> str:
    """What the layer of a kernel's cores is called."""
    return layer_name(f"{path}/core")


def shell(
    graph: ChannelGraph, path: str, roles: str, own: Ladder, ranks: Mapping[str, int]
) -> PlannedKernel:
    """A planned kernel before anything is decomposed."""
    format, sizes = own.format, {**own.sizes, **ranks}
    if "b" in roles:
        axis = roles.index("b")
        format, sizes = format.stacked(axis), {STACK: graph.variables[path].shape[axis], **sizes}
    return PlannedKernel(path=path, roles=roles, format=format, sizes=sizes, error=0.0)


def factorized_graph(graph: ChannelGraph, kernels: Mapping[str, PlannedKernel]) -> ChannelGraph:
    """The channel graph of the same function with factorized kernels; bonds are groups of it."""
    closed = ClosedJaxpr(graph.jaxpr, graph.body.consts)
    variables = {
        path: kernels[path].struct(variable.dtype)
        if path in kernels
        else jax.ShapeDtypeStruct(variable.shape, variable.dtype)
        for path, variable in graph.variables.items()
    }
    inputs = [
        jax.ShapeDtypeStruct(shape_of(v), dtype_of(v)) for v in graph.jaxpr.invars[len(variables) :]
    ]

    def fn(variables: Mapping[str, Any], *inputs: Any) -> list[Any]:
        return evaluate(
            closed, [*(variables[path] for path in graph.variables), *inputs], contracted
        )

    return trace_channels(fn, variables, *inputs)


def cost_of(graph: ChannelGraph, cost: Costing, seed: Cost | None = None) -> Cost:
    """A cost by its name or function.

    Args:
        graph: of the network.
        cost: a name or a function.
        seed: the same cost of the dense network: what a sum of different units is relative to.
    """
    found = cost_named(graph, cost) if isinstance(cost, str) else cost(graph)
    if seed is None or found.unit != SEEDS:
        return found
    pairs = zip(found.terms, seed.terms, strict=True)
    return weighted([(weight * own.seed / was.seed, own) for (weight, own), (_, was) in pairs])


def by_layer(cost: Cost) -> dict[str, float]:
    """What every layer costs, as the network is."""
    found: dict[str, float] = {}
    for line in cost.table():
        found[line.layer] = found.get(line.layer, 0.0) + line.cost
    return found
