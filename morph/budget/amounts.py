"""What a person asks for: amounts such as `50%`, `120MFLOP` or `2ms`, and least widths."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from morph.errors import BudgetError
from regularizers.channels.graph import ChannelGraph
from regularizers.channels.naming import by_group
from regularizers.costs.cost import Cost
from regularizers.errors import InputError

# What a unit may be called; without regard to case but for symbols of one letter.
UNITS: Mapping[str, tuple[str, ...]] = {
    "FLOP": ("flop", "flops"),
    "parameters": ("parameter", "parameters", "param", "params"),
    "B": ("B", "byte", "bytes"),
    "s": ("s", "sec", "second", "seconds"),
    "J": ("J", "joule", "joules"),
}
# Prefixes are told apart by case: M is a million, m a thousandth.
LARGE: Mapping[str, float] = {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
BINARY: Mapping[str, float] = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
SMALL: Mapping[str, float] = {"m": 1e-3, "u": 1e-6, "µ": 1e-6, "μ": 1e-6, "n": 1e-9}
PREFIXES: Mapping[str, Mapping[str, float]] = {
    "FLOP": LARGE,
    "parameters": LARGE,
    "B": {**LARGE, **BINARY},
    "s": SMALL,
    "J": {**SMALL, "k": 1e3},
}
MOST = 1e12  # times the seed's cost: nobody means more
EXAMPLES = {
    "FLOP": "120MFLOP or 1.5GFLOP",
    "parameters": "1.2Mparameters or 300k parameters",
    "B": "300KB or 2MiB",
    "s": "2ms or 150us",
    "J": "3mJ or 250uJ",
}
_AMOUNT = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([^\d\s].*?)?\s*")


@dataclass(frozen=True)
class Amount:
    """A budget that is in the unit of its cost already, to the last bit."""

    value: float


def parse_budget(budget: float | str | Amount, cost: Cost) -> float:
    """A budget in the unit of a cost.

    Args:
        budget: a ratio to the seed's cost (`0.5`, `"0.5"`, `"50%"`), or an amount with a unit:
            `"120MFLOP"`, `"2ms"`, `"300KB"`, `"2MiB"`, `"1.2M parameters"`, `"3mJ"`.
        cost: of the seed; what the budget is for.

    Returns:
        The amount, in the unit of `cost`.

    Raises:
        BudgetError: if it is no amount above zero, one of another unit, or beyond what anybody
            means, with examples.

    Example:
        >>> parse_budget("50%", flops(graph)) == 0.5 * flops(graph)()        # doctest: +SKIP
    """
    if isinstance(budget, Amount):
        return budget.value
    found = _AMOUNT.fullmatch(str(budget))
    if found is None:
        raise BudgetError(f"a budget of {budget!r} is not an amount; {_examples(cost)}")
    number, unit = float(found[1]), found[2] or ""
    if unit in ("", "%"):
        scale = cost.seed / (100.0 if unit else 1.0)
    else:
        scale = _scale(unit, cost, budget)
    if not 0.0 < number < math.inf:
        raise BudgetError(f"a budget must be above zero, found {budget!r}; {_examples(cost)}")
    if number * scale > MOST * cost.seed > 0.0:
        raise BudgetError(
            f"a budget of {budget!r} is more than {MOST:,.0f} times the seed's cost of "
            f"{cost.show(cost.seed)}; {_examples(cost)}"
        )
    return number * scale


def parse_smaller(budget: float | str | Amount, cost: Cost) -> float:
    """`parse_budget`, of a network that shall become cheaper.

    Raises:
        BudgetError: also if it costs less than that now.
    """
    limit = parse_budget(budget, cost)
    if limit > cost.seed and not isinstance(budget, Amount):
        raise BudgetError(
            f"the budget must be below the present cost of {cost.show(cost.seed)}: {budget!r} is "
            f"{cost.show(limit)}"
        )
    return limit


def _scale(asked: str, cost: Cost, budget: float | str) -> float:
    """How many of the cost's unit a prefixed unit is.

    Raises:
        BudgetError: if it is none.
    """
    known = {"", *(prefix for table in PREFIXES.values() for prefix in table)}
    readings = [(unit, _prefix(asked, unit)) for unit in UNITS]
    readings = [(unit, prefix) for unit, prefix in readings if prefix in known]
    for unit, prefix in readings:
        if unit == cost.unit and prefix in {"", *PREFIXES[unit]}:
            return PREFIXES[unit].get(prefix, 1.0)
    hint = ""
    for unit, prefix in readings:
        if unit == cost.unit:
            cases = {"m": "m is milli; a million is M", "M": "M is a million; milli is m"}
            hint = f" ({cases.get(prefix, f'{prefix!r} is no prefix of {unit}')})"
    if asked.lower().endswith("b") and cost.unit == "B" and not hint:
        hint = " (bytes are B)"
    raise BudgetError(
        f"a budget of {budget!r} does not fit the target: asked for {asked!r}{hint}, and "
        f"{cost.name} is counted in {cost.unit} (the seed's is {cost.show(cost.seed)}); "
        f"{_examples(cost)}"
    )


def _prefix(asked: str, unit: str) -> str:
    """What stands before a name of `unit` in `asked`; `?` if it does not end with one."""
    for name in sorted(UNITS[unit], key=len, reverse=True):
        tail = asked[len(asked) - len(name) :]
        if tail == name or (len(name) > 1 and tail.lower() == name):
            return asked[: len(asked) - len(name)].strip()
    return "?"


def _examples(cost: Cost) -> str:
    """The end of an error message."""
    own = f", or an amount such as {EXAMPLES[cost.unit]}" if cost.unit in EXAMPLES else ""
    return f"give a ratio to the seed's cost (0.5 or 50%){own}"


def floors_of(
    graph: ChannelGraph, min_width: int = 1, floors: Mapping[str, int] | None = None
) -> dict[str, int]:
    """The least width of every group.

    Args:
        graph: whose groups.
        min_width: of all groups.
        floors: of groups by pattern; the first that matches wins. `min_width` holds beside it.

    Returns:
        The larger of both, and never more than the seed's width.

    Raises:
        ValueError: if a floor is below 1, or a pattern matches nothing.
    """
    for pattern, floor in {"min_width": min_width, **(floors or {})}.items():
        if floor < 1 or floor != int(floor):
            raise InputError(f"a floor must be at least 1, found {floor} for {pattern!r}")
    own = by_group(graph, floors or {}, "floors")
    return {
        name: min(width, max(min_width, own.get(name, 1))) for name, width in graph.widths.items()
    }
