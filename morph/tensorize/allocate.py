"""Ranks for a budget: which kernels are cut how far, so that together they lose the least."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from morph.errors import BudgetError


@dataclass(frozen=True, kw_only=True)
class Option:
    """One way to keep a kernel.

    Attributes:
        kind: of its format.
        ranks: one for each bond.
        cost: what the layer costs then.
        loss: what it loses; 0 for the dense kernel, whatever the unit.
    """

    kind: str
    ranks: Mapping[str, int]
    cost: float
    loss: float


def allocate(
    dense: Mapping[str, float], options: Mapping[str, Sequence[Option]], most: float
) -> dict[str, Option | None]:
    """One option for every kernel, None for dense, at a cost of at most `most` together.

    From all dense, the step that loses least for what it saves comes next (the greedy rule on the
    convex hulls of the options, which is optimal but for the last step); what the last step saved
    too much is given back where it helps most.

    Args:
        dense: by kernel, what it costs when dense.
        options: by kernel; those that cost no less than it does dense are not looked at.
        most: the budget of all these kernels, in the unit of the costs.

    Raises:
        BudgetError: if the smallest ranks cost more.

    Example:
        >>> cut = Option(kind="svd", ranks={"r": 2}, cost=4.0, loss=0.1)
        >>> allocate({"a": 10.0, "b": 10.0}, {"a": [cut], "b": []}, 15.0)["a"].ranks
        {'r': 2}
    """
    hulls = {name: _hull(cost, options.get(name, ())) for name, cost in dense.items()}
    steps = sorted(
        (
            ((after.loss - before.loss) / (before.cost - after.cost), name, k + 1)
            for name, hull in hulls.items()
            for k, (before, after) in enumerate(pairwise(hull))
        ),
    )
    at = dict.fromkeys(dense, 0)
    total = sum(dense.values())
    for _, name, k in steps:
        if total <= most:
            break
        total += hulls[name][k].cost - hulls[name][at[name]].cost
        at[name] = k
    if total > most * (1.0 + 1e-9):
        raise BudgetError(f"the smallest ranks cost {total:g} in these kernels, above {most:g}")
    chosen = {name: hulls[name][k] for name, k in at.items()}
    for _ in range(len(options)):
        gains = [
            (now.loss - other.loss, name, other)
            for name, now in chosen.items()
            for other in [_option(dense[name]), *options.get(name, ())]
            if other.loss < now.loss and total + other.cost - now.cost <= most
        ]
        if not gains:
            break
        _, name, other = max(gains, key=lambda gain: gain[0])
        total += other.cost - chosen[name].cost
        chosen[name] = other
    return {name: option if option.kind else None for name, option in chosen.items()}


def filled(
    dense: Mapping[str, float],
    chosen: Mapping[str, Option | None],
    above: Callable[[str, Option], Sequence[Option]],
    most: float,
) -> dict[str, Option]:
    """What is chosen with larger ranks, one by one, while a budget lasts; without dense kernels.

    The next is the one that gains most for what it costs, of those that fit.

    Args:
        dense: by kernel, what it costs when dense.
        chosen: as `allocate` gives it.
        above: by kernel and option: the options next to it.
        most: as of `allocate`.
    """
    found = {name: option for name, option in chosen.items() if option is not None}
    total = sum(found[name].cost if name in found else cost for name, cost in dense.items())
    steps = {name: above(name, option) for name, option in found.items()}
    while True:
        gains = [
            ((found[name].loss - other.loss) / max(other.cost - found[name].cost, 1e-300), name, k)
            for name in found
            for k, other in enumerate([*steps[name], _option(dense[name])])
            if other.loss < found[name].loss and total + other.cost - found[name].cost <= most
        ]
        if not gains:
            return found
        _, name, k = max(gains)
        total -= found[name].cost
        if k == len(steps[name]):  # dense
            total += dense[name]
            del found[name]
        else:
            found[name] = steps[name][k]
            total += found[name].cost
            steps[name] = above(name, found[name])


def _option(dense_cost: float) -> Option:
    return Option(kind="", ranks={}, cost=dense_cost, loss=0.0)


def _hull(dense_cost: float, options: Sequence[Option]) -> list[Option]:
    """The lower convex hull of loss over cost, from the dense kernel down."""
    useful = [option for option in options if option.cost < dense_cost]
    hull = [_option(dense_cost)]
    for option in sorted(useful, key=lambda option: (-option.cost, option.loss)):
        if option.cost == hull[-1].cost and option.loss >= hull[-1].loss:
            continue
        while len(hull) > 1 and _slope(hull[-2], option) <= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(option)
    return hull


def _slope(before: Option, after: Option) -> float:
    saved = before.cost - after.cost
    return (after.loss - before.loss) / saved if saved > 0.0 else 0.0
