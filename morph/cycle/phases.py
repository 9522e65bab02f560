"""A run as a list of phases, and the learning rate of each."""

from __future__ import annotations

from dataclasses import dataclass

import optax

from morph.cycle.config import CycleConfig
from morph.training.optimizers import rate_schedule


@dataclass(frozen=True)
class Phase:
    """One stretch of training: `seed`, `shrink`, `retrain`, `tensorize` or `uniform`."""

    kind: str
    cycle: int
    steps: int
    warm: bool = False  # goes on from the weights that the phase before left

    @property
    def name(self) -> str:
        """The kind, numbered from the second cycle on."""
        return self.kind if self.cycle == 0 else f"{self.kind} {self.cycle + 1}"


def rate_of(config: CycleConfig, i: int) -> optax.Schedule:
    """The learning rate at every step of a phase.

    Args:
        config: of the run.
        i: the number of the phase.
    """
    phases, first, last = phases_of(config), i, i + 1
    peak = config.shrink_learning_rate if phases[i].warm else config.learning_rate
    if config.schedule == "run":  # that of the first of those that go on from each other
        while phases[first].warm:
            first -= 1
        while last < len(phases) and phases[last].warm:
            last += 1
        peak = config.learning_rate
    return rate_schedule(
        peak,
        sum(phase.steps for phase in phases[first:last]),
        warmup_steps=config.warmup_steps,
        start=sum(phase.steps for phase in phases[first:i]),
    )


def phases_of(config: CycleConfig) -> tuple[Phase, ...]:
    """All phases of a run, in order."""
    c = config
    baseline = [Phase("uniform", 0, c.retrain_steps)] if c.baseline else []
    cycles = []
    for i in range(c.cycles):
        warm = c.final == "finetune" if i == c.cycles - 1 else c.expand == "warm"
        cycles.append(Phase("shrink", i, c.shrink_steps, warm=True))
        cycles.append(Phase("retrain", i, c.retrain_steps, warm=warm))
    last = [Phase("tensorize", 0, c.tensorize_steps, warm=True)] if c.tensorize else []
    return (*baseline, Phase("seed", 0, c.seed_steps), *cycles, *last)
