"""Ranks for a budget of a whole network, whose costs are read off its channel graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from morph.budget.amounts import parse_budget
from morph.errors import BudgetError
from morph.kernels.evaluate import evaluate
from morph.kernels.factorized import STACK
from morph.kernels.formats import FORMATS
from morph.kernels.planned import PlannedKernel
from morph.kernels.tensorized import contracted
from morph.tensorize.allocate import Option, allocate
from morph.tensorize.options import Rung, priced
from regularizers.channels.graph import ChannelGraph
from regularizers.channels.parts import layer_name
from regularizers.channels.trace import trace_channels
from regularizers.costs.cost import Cost
from regularizers.named import cost_named
from regularizers.primitives.jaxprs import ClosedJaxpr, dtype_of, shape_of

ROUNDS = 6  # of allocation, until the cost of the whole network is close to the budget
CLOSE = 0.01  # below the budget
Costing = str | Callable[[ChannelGraph], Cost]


def ranks_within(
    graph: ChannelGraph,
    kinds: Mapping[str, tuple[str, str]],
    ladders: Mapping[str, Sequence[Rung]],
    losses: Mapping[str, Callable[[float], float]],
    budget: float | str,
    costing: Costing,
    cores: int,
    factors: Mapping[str, Sequence[Sequence[int]]],
) -> dict[str, Option]:
    """The ranks for a budget; kernels that are not in it stay dense.

    What a layer costs at some ranks is read off one graph, in which the bonds are channel groups.
    That is not the whole truth: parts may not add up (latency, peaks of memory), and at other ranks
    another order of contraction can be cheaper. So the whole is priced too, and the parts get less
    or more until it fits.
    """
    seed = cost_of(graph, costing)
    most = parse_budget(budget, seed)
    if most >= seed.seed:
        return {}

    def shells(ranks: Mapping[str, Mapping[str, int]]) -> dict[str, PlannedKernel]:
        return {
            path: _shell(graph, path, *kinds[path], own, cores, factors.get(path))
            for path, own in ranks.items()
        }

    middle: dict[str, PlannedKernel] = {}
    for path, rungs in ladders.items():
        for ranks, _ in rungs:  # the first that halves the kernel, or the last
            middle |= shells({path: ranks})
            dense_size, size = middle[path].parameters
            if 2 * size <= dense_size:
                break
    whole = factorized_graph(graph, middle)
    ceiling = cost_of(whole, costing)
    booked, rest = by_layer(seed), by_layer(ceiling)
    dense, options = {}, {}
    for path, rungs in ladders.items():
        layer, own = layer_name(path), core_layer(path)
        together = [other for other in kinds if layer_name(other) == layer]
        share = _size(graph, [path]) / _size(graph, together)
        kept = rest.get(layer, 0.0) if layer != own else 0.0  # a variable outside of any layer
        dense[path] = share * (booked.get(layer, 0.0) - kept)
        groups = {bond: _group(whole, middle[path], bond) for bond in middle[path].ranks}
        if own in rest and all(groups.values()):
            price = _price(ceiling.of_layers(own), groups)
            options[path] = priced(kinds[path][1], rungs, losses[path], price)
    fixed = seed.seed - sum(dense.values())
    least = fixed + sum(
        min([dense[path], *(option.cost for option in options.get(path, ()))]) for path in dense
    )
    if least > most:
        raise BudgetError(
            f"a budget of {seed.show(most)} is out of reach: with every kernel at its least ranks "
            f"the network costs {seed.show(least)} (now {seed.show(seed.seed)}, of which "
            f"{seed.show(fixed)} in what is not factorized). Raise the budget, shrink the network "
            "first, or let more kernels be factorized."
        )
    target, best, best_total = most, None, 0.0
    for _ in range(ROUNDS):
        chosen = allocate(dense, options, max(target, least) - fixed)
        picked = {path: option for path, option in chosen.items() if option is not None}
        now = factorized_graph(graph, shells({path: o.ranks for path, o in picked.items()}))
        total = cost_of(now, costing).seed
        if best_total < total <= most * (1.0 + 1e-9):
            best, best_total = picked, total
        if (1.0 - CLOSE) * most <= total <= most * (1.0 + 1e-9):
            break
        target -= 1.02 * (total - most)
    if best is None:
        raise BudgetError(
            f"no ranks were found at which {seed.name} is at most {seed.show(most)}; the last "
            f"tried cost {seed.show(total)}. Raise the budget."
        )
    return best


def _size(graph: ChannelGraph, paths: Sequence[str]) -> int:
    """How many numbers some variables hold."""
    return sum(math.prod(graph.variables[path].shape) for path in paths)


def core_layer(path: str) -> str:
    """What the layer of a kernel's cores is called."""
    return layer_name(f"{path}/core")


def _price(cost: Cost, groups: Mapping[str, str]) -> Callable[[Mapping[str, int]], float]:
    return lambda ranks: float(cost({groups[bond]: rank for bond, rank in ranks.items()}))


def _group(graph: ChannelGraph, kernel: PlannedKernel, bond: str) -> str:
    """The channel group that a bond is; "" if it is none, since inference fixed it."""
    for name, labels in zip(kernel.format.names, kernel.format.labels, strict=True):
        if bond in labels:
            axis = graph.variables[f"{kernel.path}/{name}"].axes[labels.index(bond)]
            return axis if isinstance(axis, str) else ""
    raise AssertionError(f"no core has {bond!r}")


def _shell(
    graph: ChannelGraph,
    path: str,
    roles: str,
    kind: str,
    ranks: Mapping[str, int],
    cores: int,
    factors: Sequence[Sequence[int]] | None,
) -> PlannedKernel:
    """A planned kernel before anything is decomposed."""
    shape = graph.variables[path].shape
    own = [n for n, role in zip(shape, roles, strict=True) if role != "b"]
    options = {"cores": cores, "factors": factors} if kind == "tt" else {}
    format, sizes = FORMATS[kind](own, roles.replace("b", ""), **options)
    sizes = {**sizes, **ranks}
    if "b" in roles:
        axis = roles.index("b")
        format, sizes = format.stacked(axis), {STACK: shape[axis], **sizes}
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


def cost_of(graph: ChannelGraph, cost: Costing) -> Cost:
    """A cost by its name or function."""
    return cost_named(graph, cost) if isinstance(cost, str) else cost(graph)


def by_layer(cost: Cost) -> dict[str, float]:
    """What every layer costs, as the network is."""
    found: dict[str, float] = {}
    for line in cost.table():
        found[line.layer] = found.get(line.layer, 0.0) + line.cost
    return found
