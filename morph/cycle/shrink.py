"""The network is shrunk to the budget while it trains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax

from morph.budget.budget import Budget
from morph.cycle.asked import target_cost
from morph.cycle.context import Context
from morph.cycle.cut import Cut, Measuring
from morph.cycle.measure import SHRUNK, named
from morph.cycle.phase import Work, steps_seen, teacher_of, trained
from morph.cycle.progress import Carried
from morph.cycle.schedule import Stretch
from morph.cycle.shrinking import (
    Trimmed,
    make_budget,
    make_regularizer,
    regularizer_of_rest,
)
from morph.network import Variables
from morph.training.gated import folded, gated_network, with_gates
from morph.training.loop import Look
from morph.training.step import TrainState
from regularizers.host import on_host
from regularizers.objective.gating import gated_groups


@dataclass(frozen=True)
class Shrink:
    """Pulls on channels and blocks, removes what is dead, and compares with the dense network."""

    stretch: Stretch

    def prepare(self, run: Context, carried: Carried, variables: Variables | None) -> Work:
        """The network that is there, with what pulls on it and with gates, if it has any."""
        assert variables is not None  # the seed comes first
        c, architecture = run.config, carried.architecture
        network, graph = run.network(architecture), run.traces.of(architecture)
        regularizer = make_regularizer(c, graph, target_cost(c, graph), left=True)
        regularizer = regularizer.summed(run.layout.sums)
        budget = make_budget(
            c, regularizer, run.shrink_to, self.stretch.steps, run.loop.every, left=True
        )
        tx = budget.optimizer(run.recipe.transformation(self.stretch.number))
        if gated := gated_groups(regularizer.groups):
            until = budget.controller.schedule.end
            network = gated_network(network, graph, gated, steps=until, mode=c.gate_mode)
            variables = with_gates(variables, graph, gated)
        variables = run.layout.variables(variables)
        state = run.recipe.state(network, variables, tx, teacher_of(run))
        return Work(
            architecture=architecture,
            network=network,
            state=budget.look(0, state.params, state),  # protects from the first step on
            predict=jax.jit(network.predict),
            budget=budget,
        )

    def train(self, run: Context, work: Work, start: int) -> Iterator[int]:
        """See `phase.trained`; the controller looks after every chunk."""
        assert work.budget is not None
        return trained(run, self.stretch, work, start, self._looking(run, work, work.budget))

    def finish(self, run: Context, work: Work, carried: Carried) -> tuple[Carried, Variables]:
        """Trims to the budget, removes what is dead, compares with the dense network."""
        assert work.budget is not None
        variables, predict = work.state.learned, work.predict
        regularizer = work.budget.regularizer
        if gated_groups(regularizer.groups):
            variables = folded(regularizer.graph, variables)
            predict = jax.jit(run.network(work.architecture).predict)
        step = work.budget.landed(
            work.state.params,
            on_host(work.state.opt_state.saliency),
            regularizer_of_rest(run.config, run.traces, work.architecture),
        )
        trim = Trimmed.of(step, regularizer.graph, variables)
        shrunk = work.architecture.then(trim.step)
        metrics, apart = run.measure.evaluator.compare(
            (predict, trim.masked), (jax.jit(run.network(shrunk).predict), trim.small)
        )
        steps, name = steps_seen(self.stretch, carried), named(SHRUNK, self.stretch.cycle)
        outcome = replace(
            run.measure.outcome(name, shrunk, metrics, steps),
            logit_difference=apart.difference,
            same_predictions=apart.same,
        )
        outcomes = (*carried.outcomes, outcome)
        run.store.shrunk(shrunk, trim.small, outcomes)
        return replace(carried, architecture=shrunk, outcomes=outcomes, steps=steps), trim.small

    def _looking(self, run: Context, work: Work, budget: Budget) -> Look:
        """Lets the budget look and decide; tells what it saw, with costs over the seed's."""
        scale, number = budget.regularizer.seed_cost / run.cost(), self.stretch.number
        cut = Cut(
            budget=budget,
            measuring=Measuring(
                objective=run.recipe.objective(run.traces),
                regularizer=budget.regularizer,
                loop=run.loop,
            ),
            rest=regularizer_of_rest(run.config, run.traces, work.architecture),
            key=run.key(number),
            offset=sum(before.steps for before in run.stretches[:number]),
        )

        def look(state: TrainState, step: int) -> tuple[TrainState, dict[str, Any]]:
            state = cut(state, step)
            state = budget.look(step, state.params, state)
            seen = budget.seen
            assert seen is not None  # there was one before the first step
            run.listener.update(step, widths=seen.widths)
            return state, {
                "cost_ratio": seen.cost_ratio * scale,
                "target_ratio": seen.target_ratio * scale,
                "strength": seen.strength,
            }

        return look
