"""The budget controllers of runs side by side: each sees its own run alone, and decides for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from morph.budget.budget import Budget, Rest
from morph.budget.controller import Look
from morph.cycle.config import CycleConfig
from morph.cycle.cut import Cut, Measuring
from morph.cycle.members import Pulling, obeyed, stacked, unstacked
from morph.cycle.shrinking import make_budget
from morph.training.step import TrainState


@dataclass(frozen=True, kw_only=True, eq=False)
class Watch:
    """Looks at the stacked states of runs that shrink.

    Attributes:
        cuts: of each run, with its budget.
        pulling: what all share.
    """

    cuts: Sequence[Cut]
    pulling: Pulling

    @classmethod
    def of(
        cls,
        config: CycleConfig,
        runs: Sequence[tuple[float, Any]],
        pulling: Pulling,
        measuring: Measuring,
        rest: Rest,
    ) -> Watch:
        """Of runs that train alike.

        Args:
            config: how to learn.
            runs: the budget of each, in the unit of the cost, and the key of all that is random.
            pulling: what all share.
            measuring: what cuts are decided by.
            rest: as of `Budget.landed`.
        """

        def budget(limit: float) -> Budget:
            own, steps, every = pulling.regularizer, config.shrink_steps, measuring.loop.every
            return make_budget(config, own, limit, steps, every, last=True)

        cuts = [
            Cut(budget=budget(limit), measuring=measuring, rest=rest, key=key)
            for limit, key in runs
        ]
        return cls(cuts=cuts, pulling=pulling)

    def look(self, states: TrainState, step: int) -> tuple[TrainState, list[Look]]:
        """The states after what was decided at a step, and what each controller saw."""
        if any(cut.budget.cuts(step) for cut in self.cuts):
            each = zip(self.cuts, unstacked(states, len(self.cuts)), strict=True)
            states = stacked([cut(state, step) for cut, state in each])
        strengths, saliency = self._seen(states)
        seen = zip(self.cuts, strengths, saliency, strict=True)
        looks = [cut.budget.controller.look(step, own, minded) for cut, own, minded in seen]
        return states.replace(opt_state=obeyed(states.opt_state, looks)), looks

    def saliency(self, states: TrainState) -> list[Any]:
        """How much each run's loss minds its channels."""
        return self._seen(states)[1]

    def _seen(self, states: TrainState) -> list[list[Any]]:
        both = self.pulling.strengths_of_all(states.params), states.opt_state.saliency
        return [unstacked(one, len(self.cuts)) for one in jax.device_get(both)]
