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
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from morph.expand import BudgetError
from regularizers.costs.cost import Cost
from regularizers.costs.edge_tpu import STEP
from regularizers.objective import NetworkRegularizer
from regularizers.proximal import ProximalState

LONGEST_STEP = STEP  # channels: the Edge TPU's


def check_feasible(regularizer: NetworkRegularizer, budget: float, min_width: int = 1) -> None:
    """Raises unless the narrowest network fits the budget, and says what its cost is made of.

    Raises:
        BudgetError: naming the least possible cost and the layers that it is spent in.
    """
    cost = regularizer.cost
    least = {g.group: min_width for g in regularizer.groups}
    floor = float(cost(least))
    if floor <= budget:
        return
    dearest = sorted(cost.table(least), key=lambda row: -row.cost)[:3]
    spent = ", ".join(f"{row.layer} {cost.show(row.cost)}" for row in dearest)
    raise BudgetError(
        f"cannot meet a budget of {cost.show(budget)}: with every group that may shrink at "
        f"width {min_width} the network still costs {cost.show(floor)} "
        f"({floor / regularizer.seed_cost:.1%} of the seed), most of it in {spent}. "
        "Ask for more than that; graph.explain(layer) says why a width is fixed."
    )


def strongest_within(
    cost: Cost,
    strengths: Mapping[str, np.ndarray],
    limit: float,
    *,
    min_width: int = 1,
    fill: bool = False,
) -> dict[str, np.ndarray]:
    """The channels worth keeping at a cost of at most `limit`.

    Channels are cut in order of strength per marginal cost until the cost fits; then those that
    still fit are taken back, the strongest first, so that little of the limit is left.

    Args:
        cost: the cost of widths.
        strengths: for the groups that may shrink, the strength of every channel.
        limit: the most that the result may cost, in the unit of `cost`.
        min_width: the strongest channels of a group that always stay.
        fill: also take back channels that cost nothing or less, as a cost with steps has them: 20
            channels may be faster than 17. It takes more evaluations of the cost.

    Returns:
        For each of the groups, bool [width]: kept.

    Raises:
        BudgetError: if the limit cannot be met.
    """
    order = list(cost.groups)
    widths = cost.vector({name: int(np.sum(s > 0)) or 1 for name, s in strengths.items()})
    marginal = dict(zip(order, np.asarray(cost.marginal(widths)), strict=True))
    names: list[str] = []
    channels: list[int] = []
    scores: list[float] = []
    for name, s in strengths.items():
        free = np.argsort(-s, kind="stable")[min_width:]
        names += [name] * len(free)
        channels += free.tolist()
        scores += (s[free] / max(float(marginal[name]), 1e-30)).tolist()
    ranking = np.argsort(np.asarray(scores), kind="stable")
    position = np.asarray([order.index(name) for name in names], int)
    cuts = _Cuts(cost=cost, limit=limit, position=position)
    low, high = 0, len(ranking)
    if cuts.cost_without(ranking) > limit:
        least = cuts.cost_without(ranking)
        raise BudgetError(f"cannot meet {cost.show(limit)}: at least {cost.show(least)}")
    while low < high:
        middle = (low + high) // 2
        fits = cuts.cost_without(ranking[:middle]) <= limit
        low, high = (low, middle) if fits else (middle + 1, high)
    cut = cuts.taken_back(ranking[:low][::-1])
    while fill and len(cut) > len(cut := cuts.filled(cut)):
        cut = cuts.taken_back(cut)
    keep = {name: np.ones(len(s), bool) for name, s in strengths.items()}
    for i in cut:
        keep[names[i]][channels[i]] = False
    return keep


@dataclass(frozen=True, kw_only=True)
class _Cuts:
    """Channels that are cut, as positions in a list of channels; the strongest first.

    Attributes:
        cost: of widths.
        limit: the most that it may be.
        position: int [channels]: the group of every channel in the list.
    """

    cost: Cost
    limit: float
    position: np.ndarray

    def cost_without(self, cut: np.ndarray) -> float:
        """The cost of the seed without these channels."""
        gone = np.bincount(self.position[cut], minlength=len(self.cost.groups))
        return float(self.cost.of_vector(self._seed - gone))

    @cached_property
    def _seed(self) -> np.ndarray:
        return self.cost.vector()

    def taken_back(self, cut: np.ndarray) -> np.ndarray:
        """What stays cut if whatever fits is taken back, one by one; many at a time while they fit.

        A group whose strongest channel does not fit any more is done.
        """
        left, size = cut, 1
        while len(left):
            block = left[:size]
            fewer = cut[~np.isin(cut, block)]
            if self.cost_without(fewer) <= self.limit:
                cut, left, size = fewer, left[size:], 2 * size
            elif len(block) > 1:
                size = max(1, len(block) // 2)
            else:
                left = left[self.position[left] != self.position[block[0]]]
        return cut

    def filled(self, cut: np.ndarray) -> np.ndarray:
        """What stays cut if of every group as many are taken back as cost nothing, or less."""
        now = self.cost_without(cut)
        for group in np.unique(self.position[cut]):
            own = cut[self.position[cut] == group][:LONGEST_STEP]
            for count in range(len(own), 0, -1):
                fewer = cut[~np.isin(cut, own[:count])]
                found = self.cost_without(fewer)
                if found <= now:
                    cut, now = fewer, found
                    break
        return cut


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
        min_width: no group gets narrower.
    """

    regularizer: NetworkRegularizer
    schedule: Schedule
    gain: float = 1.0
    most: float = 0.25
    min_width: int = 1

    def initial_strength(self, strengths: Mapping[str, np.ndarray]) -> float:
        """The strength that would take half of the cost within a third of the schedule.

        Of each group the strength that pulls its median channel to zero counts as much as the group
        costs: one that has most of the cost has large marginal costs, and would die at once of what
        is right for the others.
        """
        marginal = jax.jit(self.regularizer.marginal_costs)(strengths)
        each = {name: max(float(marginal[name]), 1e-9) for name in strengths}
        needed = np.asarray([float(np.median(s)) / each[name] for name, s in strengths.items()])
        share = np.asarray([len(s) * each[name] for name, s in strengths.items()])
        order = np.argsort(needed)
        half = np.searchsorted(np.cumsum(share[order]), share.sum() / 2.0)
        steps = max(1.0, (self.schedule.end - self.schedule.start) / 3)
        return float(needed[order][half]) / steps

    def look(self, step: int, strengths: Mapping[str, Any], strength: float) -> Look:
        """One look at the network.

        Args:
            step: the step of the schedule.
            strengths: the strength of every channel now.
            strength: the strength that the last look returned.
        """
        cost, seed_cost = self.regularizer.cost, self.regularizer.seed_cost
        here = {name: np.asarray(s) for name, s in strengths.items()}
        alive = float(cost({name: max(1, int((s > 0).sum())) for name, s in here.items()}))
        ratio, target = alive / seed_cost, self.schedule(step)
        keep = strongest_within(cost, here, target * seed_cost, min_width=self.min_width)
        settled = ratio <= self.schedule.budget_ratio
        if not settled:
            move = self.gain * (math.log(ratio) - math.log(target))
            strength *= math.exp(min(self.most, max(-self.most, move)))
        return Look(
            strength=strength, settled=settled, keep=keep, cost_ratio=ratio, target_ratio=target
        )
