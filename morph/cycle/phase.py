"""A phase of a run: three verbs, and what most phases do for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import jax
import optax

from morph.architecture.architecture import Architecture
from morph.budget.budget import Budget
from morph.cycle.context import Context
from morph.cycle.measure import named
from morph.cycle.progress import Carried
from morph.cycle.saved import Saved
from morph.cycle.schedule import Stretch
from morph.network import Network, Variables
from morph.training.layout import Layout
from morph.training.loop import Course, Look
from morph.training.step import TrainState


@dataclass(kw_only=True)
class Work:
    """A phase in progress.

    Attributes:
        architecture: at its start, relative to the seed.
        network: there; in a shrink phase with its gates.
        state: of its training.
        predict: of the network, jitted.
        budget: what pulls on channels, in a shrink phase.
    """

    architecture: Architecture
    network: Network
    state: TrainState
    predict: Callable[[Variables, Any], Any]
    budget: Budget | None = None

    def restore(self, saved: Saved, layout: Layout) -> None:
        """Goes on from a checkpoint, with arrays where they belong."""
        self.state = layout.state(self.state.replace(**saved.into(arrays_of(self.state))))


class Phase(Protocol):
    """One phase of a run.

    Whatever it needs is recomputed from its stretch, its step and the last checkpoint, so that a
    run that was stopped goes on as if it had not been. One of no steps comes between two that
    train; it is part of the one before, and done again with its end.
    """

    @property
    def stretch(self) -> Stretch:
        """Its number, its steps, its name."""

    def prepare(self, run: Context, carried: Carried, variables: Variables | None) -> Work:
        """The network, its variables and its optimizer at the start.

        Args:
            run: what holds for the whole run.
            carried: what the phase before handed on.
            variables: likewise; of `carried.architecture`.
        """

    def train(self, run: Context, work: Work, start: int) -> Iterator[int]:
        """Trains; yields the number of steps done after each chunk, and once before the first."""

    def finish(self, run: Context, work: Work, carried: Carried) -> tuple[Carried, Variables]:
        """Measures what it ended with; what is known, and what the next phase starts from."""


def started(
    run: Context,
    stretch: Stretch,
    architecture: Architecture,
    variables: Variables | None,
    *,
    taught: bool = False,
) -> Work:
    """A network with the optimizer of its stretch, from variables or, without, freshly drawn."""
    network = run.network(architecture)
    if variables is None:
        variables = run.drawn(architecture, stretch.number)
    variables = run.layout.variables(variables)
    tx = run.recipe.transformation(stretch.number)
    state = run.recipe.state(network, variables, tx, teacher_of(run) if taught else None)
    return Work(
        architecture=architecture,
        network=network,
        state=state,
        predict=jax.jit(network.predict),
    )


def waiting(run: Context, architecture: Architecture, variables: Variables | None) -> Work:
    """A network that is there, in a phase that trains nothing."""
    assert variables is not None
    network = run.network(architecture)
    return Work(
        architecture=architecture,
        network=network,
        state=TrainState.of(network, variables, optax.identity()),
        predict=network.predict,
    )


def teacher_of(run: Context) -> Variables | None:
    """The trained seed's variables, as its phase left them; None if it teaches nobody."""
    if not run.config.distill:
        return None
    return run.store.variables("seed_variables", run.traces.variables)


def trained(
    run: Context, stretch: Stretch, work: Work, start: int, look: Look | None = None
) -> Iterator[int]:
    """Trains with the loop; tells the listener, tests now and then, writes records."""
    number, steps, every = stretch.number, stretch.steps, run.loop.every
    run.listener.phase(stretch.name, steps)
    course = Course(
        name=stretch.name,
        steps=steps,
        key=run.key(number),
        shuffle=run.config.seed * 1000 + number,
        start=start,
        offset=sum(before.steps for before in run.stretches[:number]),
    )
    test_every = max(every, steps // 5 // every * every)
    yield start
    for done in run.loop.run(work.state, course, look):
        work.state = done.state
        terms = {f"loss_{name}": float(value) for name, value in done.terms.items()}
        metrics: dict[str, Any] = {"loss": float(done.loss), **terms, **(done.seen or {})}
        if done.step % test_every == 0 or done.step == steps:
            found = run.measure.of(work.predict, work.state.learned)
            metrics |= {f"test_{name}": value for name, value in found.items()}
        run.listener.update(done.step, **metrics)
        told = {"phase": stretch.name, "phase_index": number, "step": done.step}
        run.store.record({**told, **metrics})
        yield done.step


def measured(
    run: Context, stretch: Stretch, name: str, work: Work, carried: Carried
) -> tuple[Carried, Variables]:
    """With the outcome of a phase's last network; and its variables."""
    variables = work.state.learned
    steps = steps_seen(stretch, carried)
    metrics = run.measure.of(work.predict, variables)
    outcome = run.measure.outcome(named(name, stretch.cycle), work.architecture, metrics, steps)
    return replace(carried, outcomes=(*carried.outcomes, outcome), steps=steps), variables


def steps_seen(stretch: Stretch, carried: Carried) -> int:
    """The training steps that weights have seen at the end of a stretch."""
    return stretch.steps + (carried.steps if stretch.warm else 0)


def arrays_of(state: TrainState) -> dict[str, Any]:
    """All that changes while training."""
    changing = [each.name for each in fields(state) if each.metadata.get("pytree_node", True)]
    return {name: getattr(state, name) for name in changing}
