"""Budget control: from "half the FLOPs" to the channels that go, and the final trim.

At every look a controller picks the channels that would be kept if training ended now, by what the
loss minds per marginal cost, so that their cost follows a schedule down to the budget. Those that
go are pulled to zero by the next look; those that stay are not touched: what they have learned is
most of what pruning gains. The final trim keeps the very same choice at the budget itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from morph.budget.trim import SLACK, least_widths, strongest_within
from morph.errors import BudgetError
from regularizers.objective.proximal import ProximalState
from regularizers.objective.regularizer import NetworkRegularizer

LOOK_SLACK = 0.05  # the share of a limit that may be left along the way, where evaluations count
HASTE = 2.0  # times the strength that just takes what goes to zero by the next look
LATE = 3  # looks after the schedule's end by which the budget must be met


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
    floors = f"  floors and rounding: {cost.show(floor - bare)} of it\n" if bare < floor else ""
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
        strength: from now on: it takes what goes to zero by the next look.
        settled: the budget is met; nothing is pulled on, and the network recovers.
        keep: the channels that would be kept if training ended now; once it is settled, the others
            are to stay zero.
        widths: the channels of every group that are alive; once it is settled, that stay so.
        cost_ratio: what they cost, over the seed's.
        target_ratio: where the schedule wants it.
    """

    strength: float
    settled: bool
    keep: dict[str, np.ndarray]
    widths: dict[str, int]
    cost_ratio: float
    target_ratio: float

    def obeyed(self, state: ProximalState) -> ProximalState:
        """The optimizer's state with what was decided."""
        held = {name: ~kept & self.settled for name, kept in self.keep.items()}
        decided = jax.device_put((np.float32(self.strength), self.keep, held))  # all at once
        strength, protected, held = decided
        return state._replace(strength=strength, protected=protected, held=held)


@dataclass(frozen=True, kw_only=True)
class Controller:
    """Decides which channels go, so that the alive cost follows the schedule.

    Attributes:
        regularizer: measures strengths and costs.
        schedule: the target share of the seed's cost at each step.
        every: steps between two looks.
        min_width: no group gets narrower; one number, or one per group.
        round_to: kept widths are multiples of it, see `strongest_within`.
    """

    regularizer: NetworkRegularizer
    schedule: Schedule
    every: int = 10
    min_width: int | Mapping[str, int] = 1
    round_to: int = 1

    def look(
        self,
        step: int,
        strengths: Mapping[str, Any],
        saliency: Mapping[str, Any] | None = None,
    ) -> Look:
        """One look at the network.

        Args:
            step: the step of the schedule.
            strengths: the strength of every channel now.
            saliency: what channels compete by; their strengths if None.

        Raises:
            BudgetError: if the strengths are not finite; or if the schedule is at its end, and what
                was to go is still there.
        """
        cost, seed_cost = self.regularizer.cost, self.regularizer.seed_cost
        for name, s in strengths.items():
            if not np.isfinite(s).all():
                raise BudgetError(
                    f"the strengths of {name!r} are not finite at step {step}: training has "
                    "diverged. Try a smaller learning rate; the last checkpoint is kept."
                )
        here = self.regularizer.worth(strengths, saliency)
        alive = {name: max(1, int((s > 0).sum())) for name, s in here.items()}
        ratio, target = float(cost(alive)) / seed_cost, self.schedule(step)
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
        settled = is_last or ratio <= self.schedule.budget_ratio
        left = {name: int(own.sum()) for name, own in keep.items()} if settled else alive
        if step >= self.schedule.end + LATE * self.every:
            self._check_gone(step, here, keep, ratio)
        return Look(
            strength=0.0 if settled else self._strength(strengths, alive, keep),
            settled=settled,
            keep=keep,
            widths=left,
            cost_ratio=float(cost(left)) / seed_cost,
            target_ratio=target,
        )

    def _strength(
        self,
        strengths: Mapping[str, Any],
        alive: Mapping[str, int],
        keep: Mapping[str, np.ndarray],
    ) -> float:
        """What takes every channel that goes to zero by the next look."""
        regularizer = self.regularizer
        widths = regularizer.cost.vector(alive)
        marginal = np.asarray(regularizer.cost.marginal(widths)) / regularizer.seed_cost
        by_name = dict(zip(regularizer.cost.groups, marginal, strict=True))
        needed = [0.0]
        for name, s in strengths.items():
            left = np.where(keep[name], 0.0, np.asarray(s) - regularizer.thresholds[name]).max()
            pull = float(by_name[name]) * regularizer.multipliers.get(name, 1.0)
            if left > 0.0 < pull:
                needed.append(float(left) / pull)
        return HASTE * max(needed) / self.every

    def _check_gone(
        self,
        step: int,
        here: Mapping[str, np.ndarray],
        keep: Mapping[str, np.ndarray],
        ratio: float,
    ) -> None:
        """Raises if channels that were held at zero long ago are alive."""
        there = [name for name, s in here.items() if (s[~keep[name]] > 0.0).any()]
        if there and ratio > (1.0 + SLACK) * self.schedule.budget_ratio:
            raise BudgetError(
                f"the cost is still at {ratio:.1%} of the seed's at step {step}, where "
                f"{self.schedule.budget_ratio:.1%} was due at step {self.schedule.end}: channels "
                f"of {', '.join(map(repr, there[:3]))} that were to go are not pulled. Wrap the "
                "optimizer with Budget.optimizer, and give its state to Budget.look after every "
                "step. The last checkpoint is kept."
            )
