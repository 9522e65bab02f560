"""Expand: multiply all widths by one width multiplier to return to a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from morph.architecture.architecture import Architecture, names_in
from morph.architecture.parts import FRESH
from morph.errors import BudgetError
from regularizers.channels.graph import ChannelGraph

_STEPS = 60  # of the bisection: more than a float64 can tell apart


def multiplied(widths: Mapping[str, int], multiplier: float, round_to: int = 1) -> dict[str, int]:
    """`widths` times the multiplier, rounded to the nearest multiple of `round_to`, never zero.

    Only what is zero stays zero: the groups of removed blocks.
    """
    return {
        name: max(round_to, round_to * int(multiplier * width / round_to + 0.5)) if width else 0
        for name, width in widths.items()
    }


def width_multiplier(
    widths: Mapping[str, int],
    cost: Callable[[Mapping[str, int]], Any],
    budget: float,
    round_to: int = 1,
) -> float:
    """The largest multiplier whose rounded widths cost at most `budget` (bisection).

    Raises:
        BudgetError: if even the narrowest widths cost more.
    """

    def fits(multiplier: float) -> bool:
        return float(cost(multiplied(widths, multiplier, round_to))) <= budget

    if not fits(0.0):
        least = float(cost(multiplied(widths, 0.0, round_to)))
        raise BudgetError(
            f"cannot meet a budget of {budget:.6g}: the narrowest widths ({round_to} per group) "
            f"cost {least:.6g}. Ask for at least that."
        )
    low, high = 0.0, 1.0
    while fits(high):
        if high > 2.0**20:
            return high  # the cost does not depend on the widths
        low, high = high, high * 2.0
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def expand(
    architecture: Architecture,
    cost: Callable[[Mapping[str, int]], Any],
    budget: float,
    *,
    round_to: int = 1,
    warm: bool = False,
) -> Architecture:
    """Multiplies all widths by the largest multiplier that keeps the cost within the budget.

    Args:
        architecture: what to expand; with a multiplier below 1 it gets narrower.
        cost: a cost over the same groups, e.g. `reg.flops(graph)`.
        budget: the most that the result may cost, in the unit of `cost`.
        round_to: widths become multiples of it.
        warm: new channels are clones of the present ones in turn, so that `take` keeps the function
            (Net2WiderNet); otherwise they are fresh, to be drawn by `morph.init`, and means divide
            by the new widths.

    Returns:
        The architecture with `width_multiplier` set.

    Raises:
        BudgetError: if the budget is below the cost of the narrowest widths.
    """
    multiplier = width_multiplier(architecture.widths, cost, budget, round_to)
    widths = multiplied(architecture.widths, multiplier, round_to)
    return replace(widened(architecture, widths, warm=warm), width_multiplier=multiplier)


def widened(
    architecture: Architecture, widths: Mapping[str, int], *, warm: bool = False
) -> Architecture:
    """The architecture at other widths; see `expand` for `warm`."""
    parents = {}
    for name, group in architecture.groups.items():
        kept = group.parents[: widths[name]]
        more = widths[name] - len(kept)
        added = [kept[i % len(kept)] if warm and kept else FRESH for i in range(more)]
        parents[name] = (*kept, *added)
    wide = architecture.with_parents(parents)
    return wide if warm else wide.counting(widths)


def widening(
    graph: ChannelGraph,
    architecture: Architecture,
    price: Callable[[Mapping[str, int]], float],
    budget: float,
    round_to: int = 1,
    *,
    warm: bool = False,
) -> Architecture:
    """The step from a network to a wider one, relative to itself: there are weights of it.

    Args:
        graph: of the network at `architecture`.
        architecture: of the network, relative to the seed.
        price: of the widths of `architecture`.
        budget: the most that the result may cost.
        round_to: as of `expand`.
        warm: as of `expand`.
    """
    multiplier = width_multiplier(architecture.widths, price, budget, round_to)
    widths = multiplied(architecture.widths, multiplier, round_to)
    own = Architecture.of_seed(graph)
    names = names_in(architecture, own)
    step = widened(own, {name: widths[names[name]] for name in own.groups}, warm=warm)
    return replace(step, width_multiplier=multiplier)
