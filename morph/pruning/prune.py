"""`morph.prune`: a trained network to a budget, in one call and without training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from morph.architecture.architecture import Architecture
from morph.architecture.shrink import shrink
from morph.budget.amounts import floors_of, parse_smaller
from morph.budget.controller import check_feasible
from morph.budget.trim import strongest_within
from morph.pruning.curves import Walk
from morph.pruning.judge import Judge, Loss, gone_with, matching
from morph.pruning.products import products
from morph.pruning.refit import strengths
from regularizers.channels.graph import GRAPH, ChannelGraph
from regularizers.checks import FLAG, FUNCTION, NAME, a, by_name, checked, shown, whole
from regularizers.costs.cost import COST, Cost
from regularizers.errors import InputError
from regularizers.messages import near
from regularizers.objective.regularizer import LEAST, NetworkRegularizer

CURVES, SCORES, REFIT = "curves", "scores", "refit"
WAYS = (CURVES, SCORES, REFIT)
POWERS = (0.0, 0.5)  # of a group's mean score: what is best differs from network to network
BATCHES = a(Iterable, "batches for calibration, one after another")


@checked(
    graph=GRAPH,
    cost=COST,
    loss=FUNCTION,
    fn=FUNCTION,
    batches=BATCHES,
    by=NAME,
    steps=whole(least=1),
    blocks=FLAG,
    round_to=whole(least=1),
    min_width=whole(least=1),
    floors=by_name(whole(least=1), "whole numbers of at least 1 by pattern"),
    inexact=FLAG,
    heard=FUNCTION,
)
def prune(
    graph: ChannelGraph,
    variables: Any,
    cost: Cost,
    budget: float | str,
    *,
    loss: Loss | None = None,
    fn: Callable[[Any, Any], Any] | None = None,
    batches: Iterable[Any],
    by: str = CURVES,
    steps: int = 1,
    blocks: bool = True,
    round_to: int = 1,
    min_width: int = 1,
    floors: Mapping[str, int] | None = None,
    inexact: bool = False,
    heard: Callable[[float], None] | None = None,
) -> Architecture:
    """The architecture of a trained network at a budget; nothing is trained.

    Channels compete within a group by their scores (the mean squared slope of the loss along each),
    groups and blocks by measured curves: what narrowing one costs the loss on the batches, over
    what it saves. The result costs at most the budget, and as little less as the widths allow.

    Args:
        graph: of the network.
        variables: its weights, of the structure that was traced.
        cost: what is limited, of the same graph.
        budget: a ratio to the network's cost (`0.7`, `"70%"`), or an amount (`"2ms"`).
        loss: `(variables, batch) -> scalar`. Give one in the mode that inference runs in; where
            batch norm is, one in train mode measures what re-estimated statistics would give.
        fn: without a loss: `(variables, batch) -> outputs`; the network's own outputs are kept.
        batches: the calibration set: what the loss takes, of one shape each. Some hundred examples
            do; they are kept in memory.
        by: `"curves"`: of networks found by measured curves, with and without blocks going, and by
            scores alone the one that the loss minds least; about 400 passes over the batches. Or
            `"scores"`: by scores alone; a handful of passes, and no block goes. Or `"refit"`: by
            what the channels that stay cannot make up for, once `morph.refit` has been called; also
            a handful of passes, and no block goes.
        steps: in how many steps the budget is reached; scores are taken again in each.
        blocks: residual blocks and towers may go as a whole.
        round_to: widths become multiples of it, in groups that are wider.
        min_width: no group gets narrower.
        floors: least widths by pattern, see `regularizers.patterns`.
        inexact: also shrink groups whose dead channels are not exactly zero.
        heard: told the share of the way that is done, for a progress bar.

    Returns:
        The architecture: `arch.take(variables)` slices the weights, `morph.compact(fn, arch)` is
        the function; `morph.recalibrate` re-estimates its statistics.

    Raises:
        BudgetError: if the budget is no amount, or out of reach; with what the cost is made of.
        InputError: if there is neither a loss nor a function, if the loss is no scalar or not
            finite, or there are no batches.

    Example:
        >>> arch = morph.prune(graph, variables, cost, "70%", loss=loss, batches=batches)
        ...     # doctest: +SKIP
        >>> small, predict = arch.take(variables), morph.compact(model.apply, arch)
        ...     # doctest: +SKIP
    """
    if by not in WAYS:
        raise InputError(f"prune: by must be one of {', '.join(WAYS)}{near(by, WAYS)}")
    if (loss is None) == (fn is None):
        raise InputError(
            "prune needs either loss=, (variables, batch) -> scalar, or fn=, (variables, batch) -> "
            f"outputs, whose own outputs are kept; found {'neither' if loss is None else 'both'}"
        )
    graph.leaves(variables)  # or it says what does not fit
    known = list(batches)
    if not known:
        raise InputError("prune: the batches hold no data")
    regularizer = NetworkRegularizer(graph, cost, threshold=0.0, inexact=inexact)
    limit = parse_smaller(budget, cost)
    least = floors_of(graph, min_width, floors)
    check_feasible(regularizer, limit, least, round_to)
    judged, slope_loss = matching(fn, variables) if fn is not None else (loss, None)
    assert judged is not None
    judge = Judge(
        graph=graph,
        variables=variables,
        loss=judged,
        slope_loss=slope_loss or (lambda v, batch, key: judged(v, batch)),
        batches=known,
        groups=tuple(g.group for g in regularizer.groups),
    )
    ways = _Ways(
        judge=judge,
        cost=cost,
        by=by,
        blocks=tuple(graph.blocks) if blocks else (),
        round_to=round_to,
        least=least,
    )
    left = Left(alive={n: np.ones(graph.widths[n], bool) for n in judge.groups})
    if not math.isfinite(before := judge.value(left.alive)):
        raise InputError(f"prune: the loss is {before} before anything is pruned")
    heard = heard or (lambda share: None)
    aims = [cost.seed * (limit / cost.seed) ** (i / steps) for i in range(1, steps)]
    for i, aim in enumerate([*aims, limit]):
        left = ways.best(left, aim, _part(heard, i, steps))
    gone = gone_with(graph, left.removed)
    alive = {name: own for name, own in left.alive.items() if name not in gone}
    return shrink(graph, alive, removed=left.removed, inexact=inexact)


@dataclass(frozen=True, kw_only=True)
class Left:
    """What is left of a network.

    Attributes:
        alive: by group, bool [width].
        removed: names of blocks that are gone.
    """

    alive: Mapping[str, np.ndarray]
    removed: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class _Ways:
    """The ways to a limit; the arguments of `prune`."""

    judge: Judge
    cost: Cost
    by: str
    blocks: tuple[str, ...]
    round_to: int
    least: Mapping[str, int]

    def best(self, left: Left, limit: float, heard: Callable[[float], None]) -> Left:
        """What the loss minds least of all that the ways lead to.

        Args:
            left: what is there now.
            limit: the most that may be left, in the unit of the cost.
            heard: told the share of the way that is done.
        """
        scores = self.judge.scores(left.alive, left.removed)
        if self.by == REFIT:
            heard(0.5)
            judge = self.judge
            layers = products(judge.graph, judge.loss, judge.variables, judge.batches)
            made = strengths(judge.graph, judge.variables, layers, scores)
            heard(1.0)
            return self._by_scores(left, made, limit, 0.0)
        ways = [self._by_scores(left, scores, limit, power) for power in POWERS]
        if self.by == CURVES:
            walks = [(), self.blocks] if self.blocks else [()]
            for i, blocks in enumerate(walks):
                told = _part(heard, i, len(walks))
                ways.append(self._by_curves(left, scores, limit, blocks, told))
        heard(1.0)
        return min(ways, key=lambda way: self.judge.value(way.alive, way.removed))

    def _by_scores(
        self, left: Left, scores: Mapping[str, np.ndarray], limit: float, power: float
    ) -> Left:
        """Channels of all groups compete by their scores over marginal costs.

        Args:
            left: what is there now.
            scores: of all channels.
            limit: the most that may be left.
            power: of a group's mean score, by which its scores are divided: 0 compares them as they
                are, 1 only within their group.
        """
        worth, gone = {}, gone_with(self.judge.graph, left.removed)
        for name, s in scores.items():
            if name in gone:
                continue
            own = left.alive[name]
            mean = max(float(s[own].mean()), LEAST)
            worth[name] = np.where(own, np.maximum(s, LEAST) / mean**power, 0.0)
        alive = strongest_within(
            self.cost.without(gone),
            worth,
            limit,
            min_width=self.least,
            round_to=self.round_to,
            fill=True,
            revive=False,
        )
        return replace(left, alive={**left.alive, **alive})

    def _by_curves(
        self,
        left: Left,
        scores: Mapping[str, np.ndarray],
        limit: float,
        blocks: tuple[str, ...],
        heard: Callable[[float], None],
    ) -> Left:
        """Groups and blocks compete by what their going costs the loss, measured."""
        widths = {name: int(alive.sum()) for name, alive in left.alive.items()}
        walk = Walk(
            judge=self.judge,
            cost=self.cost,
            ranked={
                name: np.argsort(-np.where(left.alive[name], s, -1.0), kind="stable")
                for name, s in scores.items()
            },
            widths={**self.judge.graph.widths, **widths},
            removed=left.removed,
            blocks=blocks,
            min_width=self.least,
            round_to=self.round_to,
            loss=self.judge.value(left.alive, left.removed),
            heard=heard,
        )
        walk.to(limit)
        return Left(alive=walk.alive(), removed=walk.removed)


def _part(heard: Callable[[float], None], i: int, count: int) -> Callable[[float], None]:
    """Hears of the i-th of several parts of the way."""
    return lambda share: heard((i + share) / count)


@checked(
    forward=FUNCTION,
    variables=a(Mapping, "variables by collection, as model.init gives them"),
    batches=BATCHES,
)
def recalibrate(
    forward: Callable[[Any, Any], Any], variables: Mapping[str, Any], batches: Iterable[Any]
) -> dict[str, Any]:
    """The variables with their statistics as the batches have them; parameters stay.

    Pruned networks have other activations than those that their running means and variances were
    taken of.

    Args:
        forward: `(variables, batch) -> updates`, in train mode: the new values of the collections
            that training writes, e.g. `batch_stats`, as averages with a momentum.
        variables: by collection.
        batches: the calibration set. The statistics forget what they were by the momentum of each
            batch: with 0.9, after 40 batches, 1.5 % of the old ones are left.

    Returns:
        All collections.

    Raises:
        InputError: if there are no batches, a collection is updated that is not there, or what
            `forward` gives is no update.

    Example:
        >>> def forward(variables, batch):                                  # doctest: +SKIP
        ...     return model.apply(variables, batch, train=True, mutable=["batch_stats"])[1]
        >>> small = morph.recalibrate(morph.compact(forward, arch), small, batches)
        ...     # doctest: +SKIP
    """
    now, step, count = dict(variables), jax.jit(forward), 0
    for batch in batches:
        updates, count = step(now, batch), count + 1
        if not isinstance(updates, Mapping):
            raise InputError(
                f"recalibrate: forward gives {shown(updates)}; it must give the new values of "
                "statistics by collection, e.g. what model.apply(..., mutable=[...]) gives second"
            )
        for name in updates:
            if name not in now or name == "params":
                raise InputError(
                    f"recalibrate: forward gives new values of {name!r}; it must give those of "
                    f"statistics, found {sorted(set(now) - {'params'})}"
                )
        now |= dict(updates)
    if not count:
        raise InputError("recalibrate: the batches hold no data")
    return now
