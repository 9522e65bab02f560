"""A run as a list of phases."""

from __future__ import annotations

from dataclasses import dataclass

from morph.config import CycleConfig


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
