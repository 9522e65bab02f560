"""Expand: multiply all widths by one width multiplier to return to a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from morph.architecture.architecture import ARCHITECTURE, Architecture, names_in
from morph.architecture.parts import FRESH
from morph.errors import BudgetError
from regularizers.channels.graph import ChannelGraph
from regularizers.checks import FLAG, FUNCTION, checked, number, whole
from regularizers.costs.cost import Cost
from regularizers.errors import InputError

MOST = 2.0**10  # times as wide: nobody means more
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
        BudgetError: if even the narrowest widths cost more, or `MOST` times the present ones less.
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
        if high >= MOST:
            if cost(multiplied(widths, high, round_to)) == cost(widths):
                return 1.0  # the cost does not depend on the widths
            raise BudgetError(
                f"a budget of {budget:.6g} sets no limit: widths {high:g} times the present ones "
                f"cost {float(cost(multiplied(widths, high, round_to))):.6g}. Ask for less, e.g. "
                f"the present cost of {float(cost(widths)):.6g}."
            )
        low, high = high, high * 2.0
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


@checked(
    architecture=ARCHITECTURE,
    cost=FUNCTION,
    budget=number(above=0.0),
    round_to=whole(least=1),
    warm=FLAG,
)
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
        BudgetError: if the budget is below the cost of the narrowest widths, or above any that
            makes sense.
        ValueError: if the cost is of another graph.
    """
    seed = architecture.seed_widths
    if isinstance(cost, Cost) and cost.groups.keys() != seed.keys():
        odd = min(cost.groups.keys() ^ seed.keys())
        raise InputError(
            f"expand: the cost {cost.name} is of another graph: the group {odd!r} is only in "
            f"{'it' if odd in cost.groups else 'the architecture'}; make it of the graph that was "
            "shrunk, e.g. reg.flops(graph)"
        )
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
