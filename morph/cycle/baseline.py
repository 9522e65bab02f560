"""What the learned network is compared with: the seed network, whole or uniformly narrower."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from morph.architecture.expand import expand
from morph.cycle.context import Context
from morph.cycle.measure import NAMES
from morph.cycle.phase import Work, measured, started, trained
from morph.cycle.progress import Carried
from morph.cycle.schedule import Stretch
from morph.network import Variables


@dataclass(frozen=True)
class Baseline:
    """Trains one of them; nothing of it is handed on but its outcome."""

    stretch: Stretch

    def prepare(self, run: Context, carried: Carried, variables: Variables | None) -> Work:
        """Freshly drawn: whole, or with one width multiplier, as wide as the budget allows."""
        del carried, variables
        architecture = run.seed
        if self.stretch.kind == "uniform":
            architecture = expand(run.seed, run.cost, run.budget, round_to=run.config.round_to)
        return started(run, self.stretch, architecture, None)

    def train(self, run: Context, work: Work, start: int) -> Iterator[int]:
        """See `phase.trained`."""
        return trained(run, self.stretch, work, start)

    def finish(self, run: Context, work: Work, carried: Carried) -> tuple[Carried, Variables]:
        """Measures it, and draws the seed network."""
        carried, _ = measured(run, self.stretch, NAMES[self.stretch.kind], work, carried)
        return carried, run.drawn(run.seed, self.stretch.number + 1)
