"""Budget control: from "half the FLOPs" to a strength that gets there, and the final trim.

A controller moves log(strength) so that the alive cost follows a schedule down to the budget, in
one training run. At every look it also picks the channels that would be kept if training ended
now, by strength per marginal cost; those are protected from zero, so that the cost cannot fall
through the schedule. The final trim keeps the very same choice at the budget itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from morph.budget.trim import SLACK, least_widths, strongest_within
from morph.errors import BudgetError
from regularizers.objective.proximal import ProximalState
from regularizers.objective.regularizer import NetworkRegularizer

LOOK_SLACK = 0.05  # the same along the way, where evaluations count
LEFT_OVER = 0.02  # the share above the budget that is cut at once at the end of the schedule
LEAST_MOVE = 0.1  # of log(strength) per look, once the schedule is at its end
MOST_PULL = 1e3  # times the strength that would remove every channel in a single step


def check_feasible(
    regularizer: NetworkRegularizer,
    budget: float,
    min_width: int | Mapping[str, int] = 1,
    round_to: int = 1,
) -> None:
    """Raises unless the narrowest network fits the budget, and says what its cost is made of.

    Args:
        regularizer: what may shrink, and the cost.
        budget: in the unit of the cost.
        min_width: no group gets narrower; one number, or one per group.
        round_to: as of `strongest_within`.

    Raises:
        BudgetError: naming the least possible cost, the layers that it is spent in, what fixes
            their widths, and what the floors cost.
    """
    cost = regularizer.cost
    names = [g.group for g in regularizer.groups]
    least = least_widths(cost, names, min_width, round_to)
    floor = float(cost(least))
    if floor <= budget:
        return
    dearest = sorted(cost.table(least), key=lambda row: -row.cost)[:3]
    spent = "\n".join(
        f"  {row.layer} {cost.show(row.cost)}{_fixed(regularizer, row.layer)}" for row in dearest
    )
    bare = float(cost(dict.fromkeys(names, 1)))
    floors = (
        f"  least widths and rounding: {cost.show(floor - bare)} of it\n" if bare < floor else ""
    )
    raise BudgetError(
        f"cannot meet a budget of {cost.show(budget)}: with every group that may shrink as narrow "
        f"as allowed the network still costs {cost.show(floor)} "
        f"({floor / regularizer.seed_cost:.1%} of the seed), most of it in\n{spent}\n{floors}"
        "Ask for more than that, or free a width; graph.explain(layer) says why it is fixed."
    )


def _fixed(regularizer: NetworkRegularizer, layer: str) -> str:
    """What fixes widths of a layer: pinned axes with reason and source line, groups left whole."""
    graph = regularizer.graph
    kernels = {operation.kernel for operation in graph.operations if operation.layer == layer}
    said = [
        f"{axis.path} axis {axis.axis} ({axis.size}): {pin.reason}"
        + (f" [{pin.source}]" if pin.source else "")
        for pin in graph.pins()
        for axis in pin.axes
        if axis.path in kernels and axis.axis >= len(graph.variables[axis.path].shape) - 2
    ]
    free = {g.group for g in regularizer.groups}
    for group in graph.groups.values():
        if group.name not in free and any(m.path in kernels for m in group.members):
            why = group.why_inexact or "its strength is 0"
            said.append(f"{group.name} stays at {group.width}: {why}")
    return "; fixed: " + "; ".join(said) if said else ""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The alive cost that is aimed at, as a share of the seed's.

    It falls geometrically from 1 at `start` to the budget at `end`, and stays there.
    """

    budget_ratio: float
    start: int
    end: int

    def __call__(self, step: int) -> float:
        """The target at a step."""
        done = (step - self.start) / max(1, self.end - self.start)
        return float(self.budget_ratio ** min(1.0, max(0.0, done)))


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the controller saw and decided.

    Attributes:
        strength: the strength from now on.
        settled: the budget is met; nothing is pulled on, and the network recovers.
        keep: the channels that would be kept if training ended now; once it is settled, the others
            are to stay zero.
        cost_ratio: the alive cost over the seed's.
        target_ratio: where the schedule wants it.
    """

    strength: float
    settled: bool
    keep: dict[str, np.ndarray]
    cost_ratio: float
    target_ratio: float

    def obeyed(self, state: ProximalState) -> ProximalState:
        """The optimizer's state with what was decided."""
        keep = {name: jnp.asarray(kept) for name, kept in self.keep.items()}
        return state._replace(
            strength=jnp.asarray(0.0 if self.settled else self.strength, jnp.float32),
            protected=keep,
            held={name: ~kept & self.settled for name, kept in keep.items()},
        )


@dataclass(frozen=True, kw_only=True)
class Controller:
    """Moves log(strength) so that the alive cost follows the schedule.

    Attributes:
        regularizer: measures strengths and costs.
        schedule: the target share of the seed's cost at each step.
        gain: of log(strength) per unit of log(alive cost / target).
        most: log(strength) moves at most this much per look.
        min_width: no group gets narrower; one number, or one per group.
        round_to: kept widths are multiples of it, see `strongest_within`.
    """

    regularizer: NetworkRegularizer
    schedule: Schedule
    gain: float = 1.0
    most: float = 0.25
    min_width: int | Mapping[str, int] = 1
    round_to: int = 1

    def initial_strength(self, strengths: Mapping[str, np.ndarray]) -> float:
        """The strength that would take half of the cost within a third of the schedule.

        Of each group the strength that pulls its median channel to zero counts as much as the group
        costs: one that has most of the cost has large marginal costs, and would die at once of what
        is right for the others.
        """
        pull = self._pull(strengths)
        regularizer = self.regularizer
        needed = np.asarray(
            [
                max(0.0, float(np.median(s)) - regularizer.thresholds[name]) / pull[name]
                for name, s in strengths.items()
            ]
        )
        share = np.asarray([len(s) * pull[name] for name, s in strengths.items()])
        order = np.argsort(needed)
        half = np.searchsorted(np.cumsum(share[order]), share.sum() / 2.0)
        steps = max(1.0, (self.schedule.end - self.schedule.start) / 3)
        return float(needed[order][half]) / steps

    def _pull(self, strengths: Mapping[str, Any]) -> dict[str, float]:
        """What a step of strength 1 takes from a channel of each group."""
        regularizer = self.regularizer
        widths = regularizer.cost.vector(self._alive(regularizer.worth(strengths)))
        marginal = np.asarray(regularizer.cost.marginal(widths)) / regularizer.seed_cost
        by_name = dict(zip(regularizer.cost.groups, marginal, strict=True))
        return {
            name: max(float(by_name[name]), 1e-9) * regularizer.multipliers.get(name, 1.0)
            for name in strengths
        }

    @staticmethod
    def _alive(worth: Mapping[str, np.ndarray]) -> dict[str, int]:
        return {name: max(1, int((s > 0).sum())) for name, s in worth.items()}

    def look(
        self,
        step: int,
        strengths: Mapping[str, Any],
        strength: float,
        saliency: Mapping[str, Any] | None = None,
    ) -> Look:
        """One look at the network.

        Args:
            step: the step of the schedule.
            strengths: the strength of every channel now.
            strength: the strength that the last look returned.
            saliency: what channels compete by; their strengths if None.

        Raises:
            BudgetError: if the strength runs away: it is `MOST_PULL` times what would remove every
                channel in a single step, and the cost does not follow; or if the strengths are not
                finite.
        """
        cost, seed_cost = self.regularizer.cost, self.regularizer.seed_cost
        for name, s in strengths.items():
            if not np.isfinite(s).all():
                raise BudgetError(
                    f"the strengths of {name!r} are not finite at step {step}: training has "
                    "diverged. Try a smaller learning rate; the last checkpoint is kept."
                )
        here = self.regularizer.worth(strengths, saliency)
        ratio, target = float(cost(self._alive(here))) / seed_cost, self.schedule(step)
        is_last = target <= self.schedule.budget_ratio
        keep = strongest_within(
            cost,
            here,
            target * seed_cost,
            min_width=self.min_width,
            round_to=self.round_to,
            fill=is_last,
            slack=SLACK if is_last else LOOK_SLACK,
            revive=False,
        )
        # What is left over at the end is cut now rather than by the final trim: there is time to
        # recover.
        settled = ratio <= self.schedule.budget_ratio * (1.0 + LEFT_OVER * is_last)
        if not settled:
            move = self.gain * (math.log(ratio) - math.log(target))
            if is_last:  # the last channel must go, however little it costs
                move = max(move, LEAST_MOVE)
            strength *= math.exp(min(self.most, max(-self.most, move)))
            if ratio > (1.0 + SLACK) * target:
                self._check_pull(step, strengths, strength, ratio, target)
        return Look(
            strength=strength, settled=settled, keep=keep, cost_ratio=ratio, target_ratio=target
        )

    def _check_pull(
        self, step: int, strengths: Mapping[str, Any], strength: float, ratio: float, target: float
    ) -> None:
        """Raises if the strength is beyond all that could help."""
        pull = self._pull(strengths)
        felt = {name: p for name, p in pull.items() if p > 1e-6} or pull
        enough = max(float(np.max(strengths[name])) / p for name, p in felt.items())
        if strength > MOST_PULL * enough:
            raise BudgetError(
                f"the penalty's strength has run away: {strength:.3g} at step {step} is more than "
                f"{MOST_PULL:g} times what removes every channel at once, and the cost is still at "
                f"{ratio:.1%} of the seed's where {target:.1%} is due. Either the parameters are "
                "not pulled (wrap the optimizer with reg.proximal, and give it the state that "
                "Look.obeyed returns), or nothing that is left has a marginal cost (cost.table() "
                "shows what is paid for). The last checkpoint is kept."
            )
