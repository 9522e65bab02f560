"""What holds for a whole run, made once before anything trains."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax

from morph.architecture.architecture import Architecture
from morph.budget.amounts import parse_budget
from morph.budget.traces import Traces
from morph.cycle.asked import shrink_to_of
from morph.cycle.config import CycleConfig
from morph.cycle.listener import Listener
from morph.cycle.measure import Measure
from morph.cycle.recipe import Recipe
from morph.cycle.schedule import Stretch, stretches_of
from morph.cycle.starts import fresh
from morph.cycle.store import Store
from morph.network import Network, Variables
from morph.training.layout import Layout
from morph.training.loop import Loop
from regularizers.costs.cost import Cost


@dataclass(frozen=True, kw_only=True)
class Context:
    """What every phase of a run is given.

    Attributes:
        recipe: how networks are trained.
        traces: the seed network, and the channel graph of all that become of it.
        cost: what is paid for, of the seed network.
        measure: what networks are worth and cost.
        store: where everything goes.
        loop: trains.
        layout: where arrays lie.
        listener: hears how it goes.
        start: the seed network's given variables; None if it is trained.
    """

    recipe: Recipe
    traces: Traces
    cost: Cost
    measure: Measure
    store: Store
    loop: Loop
    layout: Layout
    listener: Listener
    start: Variables | None = None

    @property
    def config(self) -> CycleConfig:
        """How to learn."""
        return self.recipe.config

    @cached_property
    def stretches(self) -> tuple[Stretch, ...]:
        """All stretches of training, by their number."""
        return stretches_of(self.config)

    @cached_property
    def seed(self) -> Architecture:
        """The seed network's architecture."""
        return Architecture.of_seed(self.traces.graph)

    @property
    def budget(self) -> float:
        """What the final network may cost, in the unit of the cost."""
        return parse_budget(self.config.budget, self.cost)

    @property
    def shrink_to(self) -> float:
        """What to shrink to, likewise."""
        return shrink_to_of(self.config, self.cost)

    def network(self, architecture: Architecture) -> Network:
        """The network at an architecture."""
        return self.traces.network.resized(architecture)

    def drawn(self, architecture: Architecture, number: int) -> Variables:
        """Fresh variables of a network, as the stretch of that number starts from."""
        network = self.network(architecture)
        return fresh(network, self.key(number), self.traces.x, self.layout)

    def key(self, number: int) -> Any:
        """The random key of a stretch."""
        return key_of(self.config.seed, number)


def key_of(seed: int, number: int) -> Any:
    """The random key of a stretch of training.

    Args:
        seed: of the run.
        number: of the stretch.
    """
    # rbg: several times faster to compile than threefry, and as good for training.
    return jax.random.fold_in(jax.random.key(seed, impl="rbg"), number)
