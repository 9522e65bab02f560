"""Ranks for a budget of a whole network, whose costs are read off its channel graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from morph.budget.amounts import parse_budget
from morph.errors import BudgetError
from morph.kernels.planned import PlannedKernel
from morph.tensorize.allocate import Option, allocate, filled
from morph.tensorize.graphs import (
    Costing,
    core_layer,
    cost_of,
    factorized_graph,
    shares,
    shell,
)
from morph.tensorize.options import Ladder
from regularizers.channels.graph import ChannelGraph
from regularizers.costs.cost import Cost
from regularizers.primitives.axes import Axis

ROUNDS = 12  # of allocation, until no larger rank fits into the budget
CLOSE = 0.01  # below the budget; what is left then is tried with single ranks
REFUSALS = 8  # of single ranks, one after the other
ROUNDING = 1.0 + 1e-9
Ranks: TypeAlias = Mapping[str, int]


def ranks_within(
    graph: ChannelGraph,
    kinds: Mapping[str, tuple[str, str]],
    ladders: Mapping[str, Ladder],
    losses: Mapping[str, Callable[[float], float]],
    budget: float | str,
    costing: Costing,
) -> dict[str, Option]:
    """The ranks for a budget; kernels that are not in it stay dense.

    What a layer costs at some ranks is read off graphs in which the bonds are channel groups. That
    is not the whole truth: parts may not add up (latency, peaks of memory), and at other ranks
    another order of contraction can be cheaper. So what is chosen is traced, which prices it and
    teaches the orders of contraction that it has, until no larger rank fits.

    Args:
        graph: of the dense network.
        kinds: by path, the kernel's roles and the kind of its format.
        ladders: by path.
        losses: by path, what an error does to the network.
        budget: a ratio to what the network costs, or an amount.
        costing: what it is of.

    Raises:
        BudgetError: if the budget is below what the smallest ranks cost.
    """
    seed = cost_of(graph, costing)
    most = parse_budget(budget, seed)
    if most >= seed.seed:
        return {}
    market = _Market(
        graph=graph, kinds=kinds, ladders=ladders, losses=losses, costing=costing, seed=seed
    )
    best = market.least()
    spent = market.learned(best)
    if spent > most * ROUNDING:
        raise BudgetError(
            f"a budget of {seed.show(most)} is out of reach: with every kernel at its smallest "
            f"ranks the network costs {seed.show(spent)} (now {seed.show(seed.seed)}, of which "
            f"{seed.show(market.fixed)} in what is not factorized). Raise the budget, shrink the "
            "network first, or let more kernels be factorized."
        )
    target = most
    for _ in range(ROUNDS):
        chosen = market.chosen(target)
        total = market.learned(chosen)
        fits = total <= most * ROUNDING
        if fits and lost(chosen) < lost(best):
            best, spent = chosen, total
        if fits and not market.fit(chosen, most - total):
            market.learn_steps(chosen)
            if not market.fit(chosen, most - total):
                break
        target = most - (total - market.sum(chosen))  # what does not add up
        target -= 0.0 if fits else 0.02 * (total - most)
    refused: list[dict[str, Option]] = []
    while spent < (1.0 - CLOSE) * most and len(refused) < REFUSALS:
        ways = (way for way in market.steps(best, math.inf) if way not in refused)
        way = min(ways, key=market.sum, default=None)
        if way is None:
            break
        total = market.learned(way)
        if total <= most * ROUNDING:
            best, spent = way, total
        else:
            refused.append(way)
    return best


def lost(chosen: Mapping[str, Option]) -> float:
    """What some options lose together."""
    return sum(option.loss for option in chosen.values())


@dataclass(frozen=True, kw_only=True)
class _Way:
    """What a kernel costs in an order of contraction.

    Attributes:
        price: of the ranks.
        ones: the bonds that had rank 1 when it was traced, and for which it says nothing else.
    """

    price: Callable[[Ranks], float]
    ones: frozenset[str]

    def holds(self, ranks: Ranks) -> bool:
        """Whether it says what a kernel costs at some ranks."""
        return all(ranks[bond] == 1 for bond in self.ones)


@dataclass(kw_only=True)
class _Market:
    """What kernels cost and lose; see `ranks_within`.

    A kernel is priced in the cheapest order of contraction of those that were met. At first these
    are the ones at ranks of 1, of 2, and at those that halve the kernels.

    Attributes:
        seed: the cost of the dense network.
        dense: by path, what each costs when dense.
        fixed: what the network costs besides.
    """

    graph: ChannelGraph
    kinds: Mapping[str, tuple[str, str]]
    ladders: Mapping[str, Ladder]
    losses: Mapping[str, Callable[[float], float]]
    costing: Costing
    seed: Cost
    dense: Mapping[str, float] = field(init=False)
    fixed: float = field(init=False)

    def __post_init__(self) -> None:
        self._ways: dict[str, list[_Way]] = {path: [] for path in self.ladders}
        self._totals: dict[tuple[object, ...], float] = {}
        self._options: dict[tuple[str, tuple[int, ...]], Option] = {}
        self._ones = {
            path: dict.fromkeys(own.format.bonds, 1) for path, own in self.ladders.items()
        }
        twos = {
            path: own.attainable(dict.fromkeys(own.format.bonds, 2))
            for path, own in self.ladders.items()
        }
        halves = {path: _halving(own, twos[path]) for path, own in self.ladders.items()}
        self._learn(self._ones)
        self._learn(twos)
        middle = self._learn(halves)
        both = shares(self.graph, self.kinds, self.seed, middle)
        self.dense = {path: dense for path, (dense, _) in both.items()}
        self.fixed = self.seed.seed - sum(self.dense.values())

    def _learn(self, ranks: Mapping[str, Ranks]) -> Cost:
        """Traces the network at some ranks, and keeps the orders of contraction it has then."""
        shells = {
            path: shell(self.graph, path, self.kinds[path][0], self.ladders[path], own)
            for path, own in ranks.items()
        }
        whole = factorized_graph(self.graph, shells)
        cost = cost_of(whole, self.costing, self.seed)
        booked = {line.layer for line in cost.lines}
        for path, kernel in shells.items():
            groups = _groups(whole, kernel)
            if core_layer(path) in booked and all(groups.values()):
                ones = frozenset(bond for bond, rank in kernel.ranks.items() if rank == 1)
                price = _price(cost.of_layers(core_layer(path)), groups)
                self._ways[path].append(_Way(price=price, ones=ones))
        self._totals[_key(ranks)] = cost.seed
        self._options.clear()
        return cost

    def learned(self, chosen: Mapping[str, Option]) -> float:
        """What the network costs with some options, traced."""
        ranks = {path: option.ranks for path, option in chosen.items()}
        if _key(ranks) not in self._totals:
            self._learn(ranks)
        return self._totals[_key(ranks)]

    def learn_steps(self, chosen: Mapping[str, Option]) -> None:
        """Learns what the next ranks of all kernels cost, of each the first, second, ... of them.

        Where costs of layers add up they are exact then.
        """
        above = {
            path: list(self.ladders[path].above(option.ranks)) for path, option in chosen.items()
        }
        for k in range(max(map(len, above.values()), default=0)):
            own = {path: steps[min(k, len(steps) - 1)] for path, steps in above.items() if steps}
            rest = {path: o.ranks for path, o in chosen.items() if path not in own}
            self._learn({**own, **rest})

    def sum(self, chosen: Mapping[str, Option]) -> float:
        """What the network costs with some options, by its parts."""
        dense = (cost for path, cost in self.dense.items() if path not in chosen)
        return self.fixed + sum(dense) + sum(option.cost for option in chosen.values())

    def least(self) -> dict[str, Option]:
        """Ranks of 1, where these cost less than the dense kernel."""
        found = {path: self._option(path, own) for path, own in self._ones.items()}
        return {path: o for path, o in found.items() if o.cost < self.dense[path]}

    def chosen(self, target: float) -> dict[str, Option]:
        """The options of least loss within a cost of the network, but for what is dense."""
        least = {path: option.cost for path, option in self.least().items()}
        floor = sum(least.get(path, cost) for path, cost in self.dense.items())
        most = max(target - self.fixed, floor)
        options = {
            path: [self._option(path, ranks) for ranks, _ in own.rungs]
            for path, own in self.ladders.items()
        }
        return filled(self.dense, allocate(self.dense, options, most), self.above, most)

    def above(self, path: str, option: Option) -> list[Option]:
        """The next ranks that cost less than the dense kernel."""
        found = [self._option(path, ranks) for ranks in self.ladders[path].above(option.ranks)]
        return [other for other in found if other.cost < self.dense[path]]

    def steps(self, chosen: Mapping[str, Option], room: float) -> Iterator[dict[str, Option]]:
        """What is chosen with one larger rank, where that costs at most so much more."""
        for path, option in chosen.items():
            for other in self.above(path, option):
                if other.cost - option.cost <= room and other.loss < option.loss:
                    yield {**chosen, path: other}

    def fit(self, chosen: Mapping[str, Option], room: float) -> bool:
        """Whether a larger rank fits, or a dense kernel."""
        return any(True for _ in self.steps(chosen, room)) or any(
            self.dense[path] - option.cost <= room for path, option in chosen.items()
        )

    def _option(self, path: str, ranks: Ranks) -> Option:
        key = path, tuple(ranks.values())
        if key not in self._options:
            self._options[key] = Option(
                kind=self.kinds[path][1],
                ranks=dict(ranks),
                cost=min(
                    (way.price(ranks) for way in self._ways[path] if way.holds(ranks)),
                    default=math.inf,
                ),
                loss=self.losses[path](self.ladders[path].error(ranks)),
            )
        return self._options[key]


def _key(ranks: Mapping[str, Ranks]) -> tuple[object, ...]:
    return tuple(sorted((path, *own.items()) for path, own in ranks.items()))


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
        both = shares(graph, kernels, seed, cost_of(after, costing, seed))
        for path, (dense, now) in both.items():
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


def _halving(own: Ladder, least: Ranks) -> dict[str, int]:
    """Ranks at which the cores hold half of what the kernel does, and at least some others."""
    half = math.prod(own.format.shape(own.sizes)) / 2.0
    found = next((r for r, _ in own.rungs if own.parameters(r) <= half), own.rungs[-1][0])
    return own.attainable({bond: max(rank, least[bond]) for bond, rank in found.items()})


def _price(cost: Cost, groups: Mapping[str, str]) -> Callable[[Ranks], float]:
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
