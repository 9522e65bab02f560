"""What trains in a phase."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from morph.architecture.architecture import Architecture
from morph.budget.controller import Look
from morph.cycle.phases import Phase
from morph.cycle.shrinking import Shrinking
from morph.network import Network, Variables
from morph.training.step import (
    TrainState,
)


@dataclass(kw_only=True)
class Trainer:
    """A phase in progress."""

    phase: Phase
    architecture: Architecture  # at its start, relative to the seed
    network: Network
    state: TrainState
    predict: Callable[[Variables, Any], Any]  # jitted
    shrinking: Shrinking | None = None

    def obey(self, look: Look) -> None:
        """Puts what the controller decided into the optimizer's state."""
        assert self.shrinking is not None
        self.shrinking.strength = look.strength
        opt_state = look.obeyed(self.state.opt_state)
        self.state = self.state.replace(opt_state=opt_state)


def arrays_of(state: TrainState) -> dict[str, Any]:
    """All that changes while training."""
    changing = [each.name for each in fields(state) if each.metadata.get("pytree_node", True)]
    return {name: getattr(state, name) for name in changing}
