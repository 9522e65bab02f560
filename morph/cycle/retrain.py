"""A cycle's last network is trained, from scratch or from the weights that it has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from morph.cycle.context import Context
from morph.cycle.patience import best_of, is_over
from morph.cycle.phase import Work, measured, started, trained
from morph.cycle.progress import Carried
from morph.cycle.schedule import Stretch
from morph.network import Variables


@dataclass(frozen=True)
class Retrain:
    """Trains the network that a cycle ends with."""

    stretch: Stretch

    def prepare(self, run: Context, carried: Carried, variables: Variables | None) -> Work:
        """From what there is; with a teacher, if there is one."""
        return started(run, self.stretch, carried.architecture, variables, taught=True)

    def train(self, run: Context, work: Work, start: int) -> Iterator[int]:
        """See `phase.trained`."""
        return trained(run, self.stretch, work, start)

    def finish(self, run: Context, work: Work, carried: Carried) -> tuple[Carried, Variables]:
        """Measures it; keeps the best so far, and tells whether another cycle is worth trying."""
        how = "fine-tuned" if self.stretch.warm else "retrained"
        name = how if run.config.shrink_to is None else f"expanded and {how}"
        carried, variables = measured(run, self.stretch, name, work, carried)
        if not run.config.patience:
            return carried, variables
        values = run.measure.firsts(carried.outcomes)
        if best_of(values) == len(values) - 1:
            save_final(run, carried, variables)
            run.store.keep_best()
        return replace(carried, converged=is_over(values, run.config.patience)), variables


def save_final(run: Context, carried: Carried, variables: Variables) -> Carried:
    """Writes what a run, or one of its cycles, ends with; with the report that was written."""
    more = {}
    if run.config.patience:
        best = best_of(run.measure.firsts(carried.outcomes)) + 1
        more = {"best_cycle": best, "stopped_early": carried.converged}
    reported = run.store.final(carried.architecture, variables, carried.outcomes, **more)
    return replace(carried, architecture=reported)
