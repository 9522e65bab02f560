"""What architectures cost, also those that lost blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from morph.architecture.architecture import Architecture, names_in
from morph.budget.traces import Traces
from regularizers.channels.graph import ChannelGraph
from regularizers.costs.cost import Cost
from regularizers.costs.flops import flops
from regularizers.costs.size import model_size

Price = Callable[[Mapping[str, int]], float]  # of the widths of the seed's groups


@dataclass(kw_only=True)
class Prices:
    """Costs of a seed network, as functions of the widths that are left of it.

    A cost of the seed would still count what a removed block costs at no width (its batch norm,
    the overhead of its kernels); so the network without it is traced, and priced.

    Attributes:
        traces: of the seed network.
        target: from a graph to what is paid for: the price `cost`. The others are `flops` and
            `parameters`.
    """

    traces: Traces
    target: Callable[[ChannelGraph], Cost]
    _known: dict[tuple[str, ...], dict[str, Price]] = field(default_factory=dict)

    @property
    def costs(self) -> Mapping[str, Callable[[ChannelGraph], Cost]]:
        """All that is priced, by name."""
        return {"cost": self.target, "flops": flops, "parameters": model_size}

    def of(self, architecture: Architecture) -> dict[str, Price]:
        """Every cost, for the blocks that an architecture has."""
        key = tuple(block.name for block in architecture.removed)
        if key not in self._known:
            self._known[key] = self._traced(architecture) if key else self._seed
        return self._known[key]

    def at(self, architecture: Architecture) -> dict[str, float]:
        """What an architecture costs."""
        if architecture.factorized:
            graph = self.traces.of(architecture)
            return {name: cost(graph).seed for name, cost in self.costs.items()}
        return {name: price(architecture.widths) for name, price in self.of(architecture).items()}

    @property
    def _seed(self) -> dict[str, Price]:
        costs = {name: cost(self.traces.graph) for name, cost in self.costs.items()}
        return {name: _price(cost, {}) for name, cost in costs.items()}

    def _traced(self, architecture: Architecture) -> dict[str, Price]:
        """The costs of the seed network without the blocks that an architecture lost."""
        seed = Architecture.of_seed(self.traces.graph)
        empty = {name: () for name, width in architecture.widths.items() if not width}
        without = replace(seed.with_parents(empty), removed=architecture.removed)
        graph = self.traces.of(without)
        names = names_in(without, Architecture.of_seed(graph))
        return {name: _price(cost(graph), names) for name, cost in self.costs.items()}


def _price(cost: Cost, names: Mapping[str, str]) -> Price:
    """A cost as a function of the seed's widths, given what its own groups are called there."""

    def price(widths: Mapping[str, int]) -> float:
        return float(cost({name: widths[names.get(name, name)] for name in cost.groups}))

    return price
