"""The seed network is trained, or given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from morph.cycle.context import Context
from morph.cycle.measure import NAMES
from morph.cycle.phase import Work, measured, started, trained
from morph.cycle.progress import Carried
from morph.cycle.schedule import Stretch
from morph.network import Variables


@dataclass(frozen=True)
class Seed:
    """Trains the seed network, which may then teach others."""

    stretch: Stretch

    def prepare(self, run: Context, carried: Carried, variables: Variables | None) -> Work:
        """From what is given, or is there, or freshly drawn."""
        variables = variables if run.start is None else run.start
        return started(run, self.stretch, carried.architecture, variables)

    def train(self, run: Context, work: Work, start: int) -> Iterator[int]:
        """See `phase.trained`; what is given is not trained."""
        if not self.stretch.steps:
            return iter(())
        return trained(run, self.stretch, work, start)

    def finish(self, run: Context, work: Work, carried: Carried) -> tuple[Carried, Variables]:
        """Measures it; keeps it, if it is to teach."""
        carried, variables = measured(run, self.stretch, NAMES["seed"], work, carried)
        if run.config.distill:
            run.store.teacher(variables)
        return carried, variables
