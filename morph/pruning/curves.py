"""Which widths to keep at a budget: by measured curves, the loss as a function of every width.

Scores are good within a group and bad between groups: their scale differs from group to group. What
narrowing a group, or removing a block, costs the loss is therefore measured, with all that has gone
before; what costs least per saving goes first.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from morph.budget.trim import allowed_widths, floor_of
from morph.pruning.judge import Judge, gone_with
from regularizers.costs.cost import Cost

LEAST_RISE = 1e-6  # of the loss: what costs less than nothing counts as nothing
EVALUATIONS = 240  # about as many as a pass takes, whatever the network
FINEST, COARSEST = 16, 4  # steps of a group from whole to its least width


@dataclass(kw_only=True)
class Walk:
    """From a network to a budget, a step at a time.

    Attributes:
        judge: measures.
        cost: of widths.
        ranked: by group, its channels from the strongest to the weakest.
        widths: now, of every group of the cost.
        removed: names of blocks that are gone.
        blocks: names of those that may go.
        min_width, round_to: as of `strongest_within`.
        loss: now.
        heard: told the share of the way that is done.
    """

    judge: Judge
    cost: Cost
    ranked: Mapping[str, np.ndarray]
    widths: dict[str, int]
    removed: frozenset[str]
    blocks: Sequence[str]
    min_width: int | Mapping[str, int]
    round_to: int
    loss: float
    heard: Callable[[float], None] = field(default=lambda share: None)

    def to(self, limit: float) -> None:
        """Narrows and removes until the cost is at most `limit`; then takes back what fits."""
        start = self.price(self.widths, self.removed)
        order: list[str] = []  # of groups, as they were narrowed
        waiting: list[tuple[float, int, str]] = []
        now = 0
        for name in (*self.ranked, *self.blocks):
            heapq.heappush(waiting, (0.0, -1, name))
        while (price := self.price(self.widths, self.removed)) > limit and waiting:
            self.heard(math.log(start / price) / math.log(start / limit))
            _, when, name = heapq.heappop(waiting)
            step = self._step(name)
            if step is None:
                continue
            if when != now:  # something has changed since it was measured
                rate = self._rate(step, price)
                if math.isfinite(rate):
                    heapq.heappush(waiting, (rate, now, name))
                continue
            self.widths, self.removed = step
            self.loss = self._measure(step)
            now += 1
            order.append(name)
            heapq.heappush(waiting, (0.0, -1, name))
        for name in dict.fromkeys(reversed(order)):  # the dearest first
            self._widen(name, limit)

    def alive(self) -> dict[str, np.ndarray]:
        """The channels that are left, of the groups that may shrink."""
        return self._alive(self.widths)

    def price(self, widths: Mapping[str, int], removed: frozenset[str]) -> float:
        """What a network costs."""
        gone = gone_with(self.judge.graph, removed)
        return float(self.cost({n: 0 if n in gone else w for n, w in widths.items()}))

    def _step(self, name: str) -> tuple[dict[str, int], frozenset[str]] | None:
        """The widths and removed blocks after the next step of a group or block."""
        blocks = self.judge.graph.blocks
        if name in blocks:
            block = blocks[name]
            last = set(block.rivals) - self.removed == {name}  # of towers one stays
            if last or self._gone.intersection({name, *block.groups}):
                return None
            return self.widths, self.removed | {name}
        if name in self._gone:
            return None
        narrower = [w for w in self._allowed(name) if w < self.widths[name]]
        steps = min(FINEST, max(COARSEST, EVALUATIONS // (2 * len(self.ranked))))
        stride = -(-len(self._allowed(name)) // steps)
        now = self.price(self.widths, self.removed)
        for width in narrower[min(stride, len(narrower)) - 1 :]:
            narrow = {**self.widths, name: width}
            if self.price(narrow, self.removed) < now:  # with steps, fewer may cost as much
                return narrow, self.removed
        return None

    @property
    def _gone(self) -> frozenset[str]:
        """The blocks that are gone, and the groups that went with them."""
        return self.removed | gone_with(self.judge.graph, self.removed)

    def _allowed(self, name: str) -> list[int]:
        seed = self.cost.groups[name]
        return allowed_widths(seed, floor_of(self.min_width, name), self.round_to)

    def _rate(self, step: tuple[dict[str, int], frozenset[str]], price: float) -> float:
        """What a step costs the loss, over what it saves."""
        saved = price - self.price(*step)
        if saved <= 0.0:  # a block of which nothing is priced
            return math.inf
        return max(self._measure(step) - self.loss, LEAST_RISE) / saved

    def _measure(self, step: tuple[dict[str, int], frozenset[str]]) -> float:
        widths, removed = step
        found = self.judge.value(self._alive(widths), removed)
        return found if math.isfinite(found) else math.inf

    def _alive(self, widths: Mapping[str, int]) -> dict[str, np.ndarray]:
        found = {}
        for name, ranked in self.ranked.items():
            found[name] = np.zeros(len(ranked), bool)
            found[name][ranked[: widths[name]]] = True
        return found

    def _widen(self, name: str, limit: float) -> None:
        """Takes back as many channels as fit."""
        if name in self.judge.graph.blocks or name in self._gone:
            return
        for width in self._allowed(name):  # from the seed's down
            wider = {**self.widths, name: width}
            if width <= self.widths[name]:
                return
            if self.price(wider, self.removed) <= limit:
                self.widths = wider
                return
