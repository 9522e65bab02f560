"""A run as a list of stretches of training, and the learning rate of each."""

from __future__ import annotations

from dataclasses import dataclass

import optax

from morph.cycle.config import CycleConfig
from morph.training.optimizers import rate_schedule


@dataclass(frozen=True)
class Stretch:
    """One stretch of training: `seed`, `shrink`, `retrain`, `tensorize` or `uniform`.

    Attributes:
        kind: of these.
        number: in the run, from 0; all that is random in it, and its records, go by that.
        cycle: likewise.
        steps: of training.
        warm: goes on from the weights that the one before left.
    """

    kind: str
    number: int
    cycle: int
    steps: int
    warm: bool = False

    @property
    def name(self) -> str:
        """The kind, numbered from the second cycle on."""
        return self.kind if self.cycle == 0 else f"{self.kind} {self.cycle + 1}"


def rate_of(config: CycleConfig, number: int) -> optax.Schedule:
    """The learning rate at every step of a stretch.

    Args:
        config: of the run.
        number: of the stretch.
    """
    all_of_them, first, last = stretches_of(config), number, number + 1
    peak = config.shrink_learning_rate if all_of_them[number].warm else config.learning_rate
    if config.schedule == "run":  # that of the first of those that go on from each other
        while all_of_them[first].warm:
            first -= 1
        while last < len(all_of_them) and all_of_them[last].warm:
            last += 1
        peak = config.learning_rate
    return rate_schedule(
        peak,
        sum(stretch.steps for stretch in all_of_them[first:last]),
        warmup_steps=config.warmup_steps,
        start=sum(stretch.steps for stretch in all_of_them[first:number]),
    )


def stretches_of(config: CycleConfig) -> tuple[Stretch, ...]:
    """All stretches of a run, in order."""
    c = config
    found = [("uniform", 0, c.retrain_steps, False)] if c.baseline else []
    found.append(("seed", 0, c.seed_steps, False))
    for i in range(c.cycles):
        warm = c.final == "finetune" if i == c.cycles - 1 else c.expand == "warm"
        found.append(("shrink", i, c.shrink_steps, True))
        found.append(("retrain", i, c.retrain_steps, warm))
    if c.tensorize:
        found.append(("tensorize", 0, c.tensorize_steps, True))
    return tuple(
        Stretch(kind, number, cycle, steps, warm)
        for number, (kind, cycle, steps, warm) in enumerate(found)
    )
