"""Kernels become tensor networks, which are then trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import jax

from morph.budget.amounts import parse_budget
from morph.cycle.asked import target_cost
from morph.cycle.checks import kinds_left
from morph.cycle.context import Context
from morph.cycle.measure import NAMES, TENSORIZED, named
from morph.cycle.phase import Work, measured, started, trained, waiting
from morph.cycle.progress import Carried
from morph.cycle.schedule import Stretch
from morph.network import Variables
from morph.tensorize.plan import tensorize_plan
from morph.training.mesh import local


@dataclass(frozen=True)
class Factorize:
    """Replaces kernels by tensor networks, and measures what that leaves; nothing trains."""

    stretch: Stretch

    def prepare(self, run: Context, carried: Carried, variables: Variables | None) -> Work:
        """The network whose kernels are replaced."""
        return waiting(run, carried.architecture, variables)

    def train(self, run: Context, work: Work, start: int) -> Iterator[int]:
        """Nothing."""
        del run, work, start
        return iter(())

    def finish(self, run: Context, work: Work, carried: Carried) -> tuple[Carried, Variables]:
        """The factorized architecture, and its cores."""
        run.listener.phase(self.stretch.name, 0)  # steps: there are none to count
        c, architecture = run.config, work.architecture
        plan = tensorize_plan(
            graph := run.traces.of(architecture),
            variables := local(work.state.variables),
            kind=kinds_left(c, graph),
            budget=parse_budget(c.tensorize_budget, run.cost)
            / run.measure.prices.at(architecture)["cost"],
            cost=partial(target_cost, c),
        )
        architecture, cores = architecture.tensorized(plan.kernels), plan.factorize(variables)
        name = named(TENSORIZED, self.stretch.cycle)
        metrics = run.measure.of(jax.jit(run.network(architecture).predict), cores)
        outcome = run.measure.outcome(name, architecture, metrics, carried.steps)
        outcomes = (*carried.outcomes, outcome)
        return replace(carried, architecture=architecture, outcomes=outcomes), cores


@dataclass(frozen=True)
class Tensorize:
    """Trains the factorized network, from the decomposed weights."""

    stretch: Stretch

    def prepare(self, run: Context, carried: Carried, variables: Variables | None) -> Work:
        """From its cores."""
        alone = run.recipe.loss is None  # only a teacher tells what is right
        return started(run, self.stretch, carried.architecture, variables, taught=alone)

    def train(self, run: Context, work: Work, start: int) -> Iterator[int]:
        """See `phase.trained`."""
        return trained(run, self.stretch, work, start)

    def finish(self, run: Context, work: Work, carried: Carried) -> tuple[Carried, Variables]:
        """Measures it."""
        return measured(run, self.stretch, NAMES["tensorize"], work, carried)
