"""The budget controllers of runs side by side: each sees its own run alone, and decides for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from morph.budget.controller import Controller, Look
from morph.cycle.members import Pulling, obeyed, unstacked
from morph.training.step import TrainState


@dataclass(frozen=True, kw_only=True, eq=False)
class Watch:
    """Looks at the stacked states of runs that shrink.

    Attributes:
        controllers: one for each run.
        pulling: what all share.
    """

    controllers: Sequence[Controller]
    pulling: Pulling

    def look(self, states: TrainState, step: int) -> tuple[TrainState, list[Look]]:
        """The states after what was decided at a step, and what each controller saw."""
        strengths, saliency = self._seen(states)
        seen = zip(self.controllers, strengths, saliency, strict=True)
        looks = [controller.look(step, own, minded) for controller, own, minded in seen]
        return states.replace(opt_state=obeyed(states.opt_state, looks)), looks

    def saliency(self, states: TrainState) -> list[Any]:
        """How much each run's loss minds its channels."""
        return self._seen(states)[1]

    def _seen(self, states: TrainState) -> list[list[Any]]:
        both = self.pulling.strengths_of_all(states.params), states.opt_state.saliency
        return [unstacked(one, len(self.controllers)) for one in jax.device_get(both)]
