"""The trim: which channels are worth keeping at a cost of at most so much."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from morph.errors import BudgetError
from regularizers.costs.cost import Cost
from regularizers.costs.edge_tpu import STEP

LONGEST_STEP = STEP  # channels: the Edge TPU's
SLACK = 0.01  # the share of a limit that may be left
BITS = 12  # that scores are compared by
EXCHANGES, MOST_EXCHANGED = 8, 3  # rounds of exchanges, and units that make room in one


def on_grid(values: Any) -> np.ndarray:
    """Numbers to 12 significant bits, so that what differs by the rounding of sums is equal.

    Sums over devices are rounded as the devices are many; which of two channels that are equally
    weak goes must not depend on it. Those that are equal go by position, the last first.

    Example:
        >>> on_grid([1.0, 1.0 + 1e-6, 1.001]).tolist()
        [1.0, 1.0, 1.0009765625]
    """
    share, power = np.frexp(np.asarray(values, np.float64))
    return np.ldexp(np.round(np.ldexp(share, BITS)), power - BITS)


def least_widths(
    cost: Cost, names: Iterable[str], min_width: int | Mapping[str, int], round_to: int
) -> dict[str, int]:
    """The narrowest that some groups may get."""
    return {
        name: allowed_widths(cost.groups[name], floor_of(min_width, name), round_to)[-1]
        for name in names
    }


def floor_of(min_width: int | Mapping[str, int], name: str) -> int:
    """The least width of a group; 1 where none is said."""
    return min_width if isinstance(min_width, int) else min_width.get(name, 1)


def allowed_widths(seed: int, floor: int = 1, round_to: int = 1) -> list[int]:
    """The widths that a group may have, from the seed's down; never none.

    Of a group that is wider than `round_to` they are the seed's width and multiples of it.

    Example:
        >>> allowed_widths(10, 3, 4), allowed_widths(3, 2, 4)
        ([10, 8, 4], [3, 2])
    """
    step = round_to if seed > round_to else 1
    least = -(-max(1, floor) // step) * step
    return [seed, *range((seed - 1) // step * step, least - 1, -step)]


def strongest_within(
    cost: Cost,
    strengths: Mapping[str, np.ndarray],
    limit: float,
    *,
    min_width: int | Mapping[str, int] = 1,
    round_to: int = 1,
    fill: bool = False,
    slack: float | None = None,
    revive: bool = True,
) -> dict[str, np.ndarray]:
    """The channels worth keeping at a cost of at most `limit`.

    Channels are cut in order of strength per marginal cost until the cost fits; then those that
    still fit are taken back, the strongest first, so that little of the limit is left. Strengths
    are compared as of `on_grid`.

    Args:
        cost: the cost of widths.
        strengths: for the groups that may shrink, the strength of every channel.
        limit: the most that the result may cost, in the unit of `cost`.
        min_width: the strongest channels of a group that always stay; one number, or one per group.
        round_to: widths become multiples of it, in groups of which the seed's width is more.
        fill: also take back channels that cost nothing or less, as a cost with steps has them: 20
            channels may be faster than 17. It takes more evaluations of the cost.
        slack: exchange channels until less than this share of the limit is left; if not given,
            `SLACK` if `fill`, else any.
        revive: dead channels (of strength 0) are taken back too, once no other fits.

    Returns:
        For each of the groups, bool [width]: kept.

    Raises:
        BudgetError: if the limit cannot be met.
    """
    order = list(cost.groups)
    strengths = {name: on_grid(s) for name, s in strengths.items()}
    widths = cost.vector({name: int(np.sum(s > 0)) or 1 for name, s in strengths.items()})
    marginal = dict(zip(order, np.asarray(cost.marginal(widths)), strict=True))
    units: list[tuple[str, np.ndarray]] = []  # channels that come and go together
    known: list[list[np.ndarray]] = [[np.zeros(0)] for _ in range(4)]
    loss, size, position, scores = known  # of each; by group
    for name, s in strengths.items():
        ranked = np.argsort(-s, kind="stable")
        steps = allowed_widths(len(s), floor_of(min_width, name), round_to)
        units += [(name, ranked[low:high]) for high, low in pairwise(steps)]
        ends = np.asarray(steps[::-1], int)  # of the units, from the strongest
        loss.append(np.add.reduceat(s[ranked].astype(np.float64), ends[:-1])[::-1])
        size.append(-np.diff(steps))
        position.append(np.full(len(steps) - 1, order.index(name)))
        scores.append(loss[-1] / size[-1] / max(float(marginal[name]), 1e-30))
    ranking = np.argsort(np.concatenate(scores), kind="stable")
    cuts = _Cuts(
        cost=cost,
        limit=limit,
        position=np.concatenate(position).astype(int),
        size=np.concatenate(size).astype(int),
        loss=np.concatenate(loss),
        slack=(SLACK if fill else 1.0) if slack is None else slack,
    )
    low, high = 0, len(ranking)
    if cuts.cost_without(ranking) > limit:
        least = cuts.cost_without(ranking)
        raise BudgetError(f"cannot meet {cost.show(limit)}: at least {cost.show(least)}")
    while low < high:
        middle = (low + high) // 2
        fits = cuts.cost_without(ranking[:middle]) <= limit
        low, high = (low, middle) if fits else (middle + 1, high)
    cut = ranking[:low][::-1]
    for now in (cuts, replace(cuts, living=False))[: 1 + revive]:
        cut = now.taken_back(cut)
        cut = now.all_filled(cut) if fill else cut
        if now.living:  # no living channel goes to make room for dead ones
            cut = now.exchanged(cut, ranking)
    keep = {name: np.ones(len(s), bool) for name, s in strengths.items()}
    for i in cut:
        name, channels = units[i]
        keep[name][channels] = False
    return keep


@dataclass(frozen=True, kw_only=True)
class _Cuts:
    """Units of channels that are cut, as positions in a list of units; the strongest first.

    Attributes:
        cost: of widths.
        limit: the most that it may be.
        position: int [units]: the group of every unit in the list.
        size: int [units]: its channels.
        loss: [units]: the strength that goes with it.
        slack: the share of the limit that may be left without an exchange.
        living: only units that have a strength are taken back.
    """

    cost: Cost
    limit: float
    position: np.ndarray
    size: np.ndarray
    loss: np.ndarray
    slack: float = SLACK
    living: bool = True

    def cost_without(self, cut: np.ndarray) -> float:
        """The cost of the seed without these units."""
        gone = np.bincount(self.position[cut], self.size[cut], minlength=len(self.cost.groups))
        return float(self.cost.of_vector(self._seed - gone))

    @cached_property
    def _seed(self) -> np.ndarray:
        return self.cost.vector()

    def _candidates(self, cut: np.ndarray) -> np.ndarray:
        """Those of `cut` that may be taken back."""
        return cut[self.loss[cut] > 0.0] if self.living else cut

    def taken_back(self, cut: np.ndarray, but: int = -1) -> np.ndarray:
        """What stays cut if whatever fits is taken back, one by one; many at a time while they fit.

        A group whose strongest unit does not fit any more is done, and group `but` from the start.
        """
        left, size = self._candidates(cut), 1
        left = left[self.position[left] != but]
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
        now, left = self.cost_without(cut), self._candidates(cut)
        for group in np.unique(self.position[left]):
            own = left[self.position[left] == group][:LONGEST_STEP]
            for count in range(len(own), 0, -1):
                fewer = cut[~np.isin(cut, own[:count])]
                found = self.cost_without(fewer)
                if found <= now:
                    cut, now = fewer, found
                    break
        return cut

    def all_filled(self, cut: np.ndarray) -> np.ndarray:
        """What stays cut if `filled` and `taken_back` go on until nothing changes."""
        while len(cut) > len(cut := self.filled(cut)):
            cut = self.taken_back(cut)
        return cut

    def exchanged(self, cut: np.ndarray, ranking: np.ndarray) -> np.ndarray:
        """What is cut after some units of one group were exchanged for units of others.

        Where the next unit of every group is too large for what is left of the limit, cutting a
        dearer one may make room for several others. Until less than `slack` of the limit is left,
        the exchange that leaves least is made; of those that leave less than `slack`, the one that
        loses the least strength.

        Args:
            cut: the units, the strongest first.
            ranking: all units, the weakest first.
        """
        enough = self.limit * (1.0 - self.slack)
        for _ in range(EXCHANGES):
            now = self.cost_without(cut)
            if now >= enough or not len(cut):
                break
            options = []
            kept = ranking[~np.isin(ranking, cut)]
            for group in np.unique(self.position[kept]):
                own = kept[self.position[kept] == group]
                for count in range(1, 1 + min(MOST_EXCHANGED, len(own))):
                    more = np.concatenate([own[:count][::-1], cut])
                    if self.cost_without(more) >= now:  # with steps, fewer may cost more
                        continue
                    more = self.taken_back(more, group)
                    found = self.cost_without(more)
                    if found > now:
                        key = (-min(found, enough), self.loss[more].sum())
                        options.append((key, more))
            if not options:
                break
            _, best = min(options, key=lambda option: option[0])
            cut = ranking[np.isin(ranking, best)][::-1]
        return cut
