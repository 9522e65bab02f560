"""A run as a list of stretches of training, and the learning rate of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import optax

from morph.cycle.config import CycleConfig
from morph.settings import names_of
from morph.training.optimizers import rate_schedule


@dataclass(frozen=True)
class Stretch:
    """One stretch of training: `seed`, `shrink`, `retrain`, `tensorize`, `whole` or `uniform`.

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
    if config.schedule == "run":  # all that go on from each other's weights
        first = _first_of_chain(all_of_them, number)
        while last < len(all_of_them) and all_of_them[last].warm:
            last += 1
    given = all_of_them[first].warm or not all_of_them[first].steps
    return rate_schedule(
        config.shrink_learning_rate if given else config.learning_rate,
        sum(stretch.steps for stretch in all_of_them[first:last]),
        warmup_steps=config.warmup_steps,
        start=sum(stretch.steps for stretch in all_of_them[first:number]),
    )


def _first_of_chain(stretches: Sequence[Stretch], number: int) -> int:
    """The stretch from whose beginning on weights were handed on to that of a number."""
    return max(stretch.number for stretch in stretches[: number + 1] if not stretch.warm)


def stretches_of(config: CycleConfig) -> tuple[Stretch, ...]:
    """All stretches of a run, in order."""
    c = config
    learned = [Stretch("seed", 0, 0, c.seed_steps)]
    for i in range(c.cycles):
        warm = c.final == "finetune" if i == c.cycles - 1 else c.expand == "warm"
        learned.append(Stretch("shrink", 2 * i + 1, i, c.shrink_steps, warm=True))
        learned.append(Stretch("retrain", 2 * i + 2, i, c.retrain_steps, warm))
    found = list(learned)
    if c.baselines:
        chain = learned[_first_of_chain(learned, len(learned) - 1) :]
        steps = sum(stretch.steps for stretch in chain)
        found[:0] = [Stretch(kind, 0, 0, steps) for kind in dict.fromkeys(names_of(c.baselines))]
    if c.tensorize:
        found.append(Stretch("tensorize", 0, 0, c.tensorize_steps, warm=True))
    return tuple(replace(stretch, number=number) for number, stretch in enumerate(found))
