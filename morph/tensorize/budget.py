"""Ranks for a budget of a whole network, whose costs are read off its channel graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from morph.budget.amounts import parse_budget
from morph.errors import BudgetError
from morph.kernels.evaluate import evaluate
from morph.kernels.factorized import STACK
from morph.kernels.formats import FORMATS
from morph.kernels.planned import PlannedKernel
from morph.kernels.tensorized import contracted
from morph.tensorize.allocate import Option, allocate, filled
from morph.tensorize.options import Ladder
from regularizers.channels.graph import ChannelGraph
from regularizers.channels.parts import layer_name
from regularizers.channels.trace import trace_channels
from regularizers.costs.cost import Cost
from regularizers.named import cost_named
from regularizers.primitives.axes import Axis
from regularizers.primitives.jaxprs import ClosedJaxpr, dtype_of, shape_of

ROUNDS = 6  # of allocation, until no larger rank fits into the budget
CLOSE = 0.01  # below the budget; what is left then is tried with single ranks
TRIES = 8
ROUNDING = 1.0 + 1e-9
Price = Callable[[Mapping[str, int]], float]
Costing = str | Callable[[ChannelGraph], Cost]


def ranks_within(
    graph: ChannelGraph,
    kinds: Mapping[str, tuple[str, str]],
    ladders: Mapping[str, Ladder],
    losses: Mapping[str, Callable[[float], float]],
    budget: float | str,
    costing: Costing,
    cores: int,
    factors: Mapping[str, Sequence[Sequence[int]]],
) -> dict[str, Option]:
    """The ranks for a budget; kernels that are not in it stay dense.

    What a layer costs at some ranks is read off graphs in which the bonds are channel groups. That
    is not the whole truth: parts may not add up (latency, peaks of memory), and at other ranks
    another order of contraction can be cheaper. So the whole is priced too, and the parts get less
    or more until no larger rank fits.
    """
    seed = cost_of(graph, costing)
    most = parse_budget(budget, seed)
    if most >= seed.seed:
        return {}

    def whole(ranks: Mapping[str, Mapping[str, int]]) -> float:
        shells = {
            path: _shell(graph, path, *kinds[path], own, cores, factors.get(path))
            for path, own in ranks.items()
        }
        return cost_of(factorized_graph(graph, shells), costing).seed

    market = _market(graph, kinds, ladders, losses, seed, costing, cores, factors)
    least = {path: o for path, o in market.least.items() if o.cost < market.dense[path]}
    floor = whole({path: o.ranks for path, o in least.items()}) if least else seed.seed
    if floor > most * ROUNDING:
        raise BudgetError(
            f"a budget of {seed.show(most)} is out of reach: with every kernel at its least ranks "
            f"the network costs {seed.show(floor)} (now {seed.show(seed.seed)}, of which "
            f"{seed.show(market.fixed)} in what is not factorized). Raise the budget, shrink the "
            "network first, or let more kernels be factorized."
        )
    best, spent, target = least, floor, most
    for _ in range(ROUNDS):
        chosen = market.chosen(target)
        total = whole({path: o.ranks for path, o in chosen.items()})
        if total <= most * ROUNDING and lost(chosen) < lost(best):
            best, spent = chosen, total
        if total <= most * ROUNDING and not any(market.steps(chosen, most - total)):
            break
        target += most - total if total <= most * ROUNDING else 1.02 * (most - total)
    tried: list[dict[str, Option]] = []
    while spent < (1.0 - CLOSE) * most and len(tried) < TRIES:
        ways = (way for way in market.steps(best, math.inf) if way not in tried)
        way = min(ways, key=lambda way: sum(o.cost for o in way.values()), default=None)
        if way is None:
            break
        tried.append(way)
        total = whole({path: o.ranks for path, o in way.items()})
        if total <= most * ROUNDING:
            best, spent = way, total
    return best


def lost(chosen: Mapping[str, Option]) -> float:
    """What some options lose together."""
    return sum(option.loss for option in chosen.values())


@dataclass(frozen=True, kw_only=True)
class _Market:
    """What kernels cost and lose.

    Attributes:
        dense: by path, what each costs when dense.
        fixed: what the network costs besides.
        least: each at ranks of 1.
        options: those of its ladder.
        option: the one of any ranks.
        ladders: by path.
    """

    dense: Mapping[str, float]
    fixed: float
    least: Mapping[str, Option]
    options: Mapping[str, Sequence[Option]]
    option: Callable[[str, Mapping[str, int]], Option]
    ladders: Mapping[str, Ladder]

    def chosen(self, target: float) -> dict[str, Option]:
        """The options of least loss within a cost of the network, but for what is dense."""
        least = {path: option.cost for path, option in self.least.items()}
        floor = sum(min(cost, least.get(path, cost)) for path, cost in self.dense.items())
        most = max(target - self.fixed, floor)
        chosen = allocate(self.dense, self.options, most)
        return filled(self.dense, chosen, self.above, most)

    def above(self, path: str, option: Option) -> list[Option]:
        """The next ranks that cost less than the dense kernel."""
        found = [self.option(path, ranks) for ranks in self.ladders[path].above(option.ranks)]
        return [other for other in found if other.cost < self.dense[path]]

    def steps(self, chosen: Mapping[str, Option], room: float) -> Iterator[dict[str, Option]]:
        """What is chosen with one larger rank, where that costs at most so much more."""
        for path, option in chosen.items():
            for other in self.above(path, option):
                if other.cost - option.cost <= room and other.loss < option.loss:
                    yield {**chosen, path: other}


def _market(
    graph: ChannelGraph,
    kinds: Mapping[str, tuple[str, str]],
    ladders: Mapping[str, Ladder],
    losses: Mapping[str, Callable[[float], float]],
    seed: Cost,
    costing: Costing,
    cores: int,
    factors: Mapping[str, Sequence[Sequence[int]]],
) -> _Market:
    """Prices by three factorized graphs: at ranks of 1, of 2, and those that halve the kernels.

    Each has its own orders of contraction; a kernel is contracted in the cheapest.
    """

    def priced(ranks: Mapping[str, dict[str, int]]) -> tuple[Cost, dict[str, Price]]:
        shells = {
            path: _shell(graph, path, *kinds[path], own, cores, factors.get(path))
            for path, own in ranks.items()
        }
        whole = factorized_graph(graph, shells)
        cost = cost_of(whole, costing)
        booked = {line.layer for line in cost.lines}
        groups = {path: _groups(whole, shell) for path, shell in shells.items()}
        return cost, {
            path: _price(cost.of_layers(core_layer(path)), found)
            for path, found in groups.items()
            if core_layer(path) in booked and all(found.values())
        }

    ones = {path: dict.fromkeys(own.format.bonds, 1) for path, own in ladders.items()}
    twos = {path: own.attainable(dict.fromkeys(ones[path], 2)) for path, own in ladders.items()}
    halves = {path: _halving(graph, path, own, twos[path]) for path, own in ladders.items()}
    (_, singles), (_, small), (middle, large) = map(priced, (ones, twos, halves))

    dense = {path: before for path, (before, _) in shares(graph, kinds, seed, middle).items()}
    ways = {path: [prices[path] for prices in (small, large) if path in prices] for path in ladders}
    known: dict[tuple[str, tuple[tuple[str, int], ...]], Option] = {}

    def option(path: str, ranks: Mapping[str, int]) -> Option:
        key = path, tuple(ranks.items())
        if key not in known:
            own = ways[path] if set(ranks.values()) != {1} else [singles[path]]
            known[key] = Option(
                kind=kinds[path][1],
                ranks=dict(ranks),
                cost=min(way(ranks) for way in own),
                loss=losses[path](ladders[path].error(ranks)),
            )
        return known[key]

    return _Market(
        dense=dense,
        fixed=seed.seed - sum(dense.values()),
        least={path: option(path, ones[path]) for path in singles},
        options={
            path: [option(path, ranks) for ranks, _ in ladders[path].rungs if ways[path]]
            or [option(path, ones[path])]
            for path in singles
        },
        option=option,
        ladders=ladders,
    )


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
        share = _size(graph, [path]) / _size(graph, together)
        kept = now.get(layer, 0.0) if layer != core_layer(path) else 0.0  # outside of any layer
        found[path] = share * (booked.get(layer, 0.0) - kept), now.get(core_layer(path), 0.0)
    return found


def without_gain(
    graph: ChannelGraph, kernels: Mapping[str, PlannedKernel], costs: Sequence[Costing]
) -> dict[str, str]:
    """The kernels that get dearer in one of some costs, or cheaper in none; why they stay dense.

    Args:
        graph: of the dense network.
        kernels: as they would be factorized.
        costs: what counts.
    """
    after = factorized_graph(graph, kernels)
    rows: dict[str, list[tuple[float, Cost, float, float]]] = {path: [] for path in kernels}
    for costing in costs:
        seed = cost_of(graph, costing)
        for path, (dense, now) in shares(graph, kernels, seed, cost_of(after, costing)).items():
            rows[path].append((now / dense if dense else float(now > 0.0) * 2.0, seed, dense, now))
    left = {}
    for path, own in rows.items():
        ratio, cost, dense, now = max(own, key=lambda row: row[0])
        if ratio > ROUNDING or all(other >= 1.0 for other, *_ in own):
            kernel = kernels[path]
            better = [other.name for share, other, *_ in own if share < 1.0]
            left[path] = (
                f"{kernel.format.kind} at ranks {kernel.ranks} gains nothing: {cost.name} "
                f"{cost.show(now)}, dense {cost.show(dense)}"
                + (f"; it would in {better[0]}, see cost=" if better else "")
            )
    return left


def _halving(
    graph: ChannelGraph, path: str, own: Ladder, least: Mapping[str, int]
) -> dict[str, int]:
    """Ranks at which the cores hold half of what the kernel does, and at least some others."""
    stack = _size(graph, [path]) / math.prod(own.format.shape(own.sizes))
    half = _size(graph, [path]) / stack / 2.0
    found = next((r for r, _ in own.rungs if own.parameters(r) <= half), own.rungs[-1][0])
    return own.attainable({bond: max(rank, least[bond]) for bond, rank in found.items()})


def _size(graph: ChannelGraph, paths: Sequence[str]) -> int:
    """How many numbers some variables hold."""
    return sum(math.prod(graph.variables[path].shape) for path in paths)


def core_layer(path: str) -> str:
    """What the layer of a kernel's cores is called."""
    return layer_name(f"{path}/core")


def _price(cost: Cost, groups: Mapping[str, str]) -> Price:
    return lambda ranks: float(cost({group: ranks[bond] for bond, group in groups.items()}))


def _groups(graph: ChannelGraph, kernel: PlannedKernel) -> dict[str, str]:
    """The channel group that each bond is, "" if inference fixed it; none for bonds of rank 1."""
    axes: dict[str, Axis] = {}
    for name, labels in zip(kernel.format.names, kernel.format.labels, strict=True):
        axes |= dict(zip(labels, graph.variables[f"{kernel.path}/{name}"].axes, strict=True))
    return {
        bond: axis if isinstance(axis := axes[bond], str) else ""
        for bond, rank in kernel.ranks.items()
        if rank > 1
    }


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
