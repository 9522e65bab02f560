"""From what a user asks for to what a regularizer measures and pulls: checked and decided once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from regularizers.channels.graph import ChannelGraph
from regularizers.channels.naming import by_group
from regularizers.costs.cost import Cost
from regularizers.errors import InputError
from regularizers.messages import near
from regularizers.objective.blocks import block_strengths
from regularizers.objective.combinations import COMBINATIONS
from regularizers.objective.measures import Measures
from regularizers.objective.penalties import PENALTIES

FRESH = "fresh"  # units of strength: those of a freshly drawn layer


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What was decided.

    Attributes:
        measures: how strong channels are, and how each group is pulled.
        multipliers: of the strength (lambda), by group; 1 where there is none.
        seed_cost: the cost at the seed's widths.
    """

    measures: Measures
    multipliers: Mapping[str, float]
    seed_cost: float


def make_plan(
    graph: ChannelGraph,
    cost: Cost,
    penalty: str | Mapping[str, str],
    *,
    combine: str,
    l1_share: float,
    inexact: bool,
    relative_to: Any,
    strengths: Mapping[str, float] | None,
    blocks: bool,
) -> Plan:
    """Decides; the arguments are those of `NetworkRegularizer`.

    Raises:
        ValueError: if a name is unknown, a pattern matches nothing, a group has no penalty, or
            there is no group to pull on.
    """
    asked = {"*": penalty} if isinstance(penalty, str) else dict(penalty)
    _check_names(asked, combine, relative_to)
    if dict(cost.groups) != graph.widths:
        odd = sorted(cost.groups.keys() ^ graph.widths.keys()) or list(graph.widths)
        raise InputError(
            f"the cost {cost.name} is of another graph: {odd[0]!r} is {cost.groups.get(odd[0])} "
            f"wide in it and {graph.widths.get(odd[0])} in this one; make it of this graph, e.g. "
            "reg.flops(graph)"
        )
    seed_cost = float(cost())
    if not seed_cost > 0.0:
        raise InputError(f"the seed's cost must be positive, found {seed_cost}")
    able = [group for group in graph.groups.values() if group.exact or inexact]
    chosen = _chosen(graph, asked, [group.name for group in able])
    multipliers = _multipliers(graph, strengths or {})
    groups = tuple(
        PENALTIES[chosen[group.name]](graph, group, l1_share)
        for group in able
        if multipliers.get(group.name, 1.0) > 0.0
    )
    if not groups:
        raise InputError(
            "the network has no channel group that can be shrunk exactly; "
            "graph.explain(path) says why an axis is fixed, inexact=True includes the others."
            + (" Some have a strength of 0." if able else "")
        )
    measures = Measures(graph=graph, groups=groups, combine=COMBINATIONS[combine])
    if relative_to is None and len({g.penalty for g in groups}) > 1:
        relative_to = FRESH
    if isinstance(relative_to, str):
        measures = replace(measures, in_fresh=True)
    elif relative_to is not None:
        means = {name: float(s.mean()) for name, s in measures.strengths(relative_to).items()}
        scale = {name: 1.0 / mean for name, mean in means.items() if mean > 0.0}
        measures = replace(measures, scale=scale)
    if blocks:
        found = block_strengths(graph, {g.group for g in groups})
        measures = replace(measures, blocks=found)
    return Plan(measures=measures, multipliers=multipliers, seed_cost=seed_cost)


def _check_names(asked: Mapping[str, str], combine: str, relative_to: Any) -> None:
    known: Sequence[tuple[str, Collection[str]]] = [
        *((name, PENALTIES) for name in asked.values()),
        (combine, COMBINATIONS),
        *([(relative_to, (FRESH,))] if isinstance(relative_to, str) else []),
    ]
    for name, table in known:
        if name not in table:
            raise InputError(f"unknown option {name!r}{near(name, table)}")


def _chosen(graph: ChannelGraph, asked: Mapping[str, str], groups: Sequence[str]) -> dict[str, str]:
    """The penalty of each group.

    Raises:
        ValueError: if a pattern matches nothing, or a group none of them.
    """
    if list(asked) == ["*"]:
        return dict.fromkeys(groups, asked["*"])
    chosen = by_group(graph, asked, "penalty")
    for name in groups:
        if name not in chosen:
            raise InputError(
                f"penalty: no pattern of {', '.join(map(repr, asked))} matches the group "
                f"{name!r}; add '*' as the last one, e.g. '*': 'group_lasso'"
            )
    return chosen


def _multipliers(graph: ChannelGraph, strengths: Mapping[str, float]) -> dict[str, float]:
    """The multiplier of each group that a pattern matches.

    Raises:
        ValueError: if a pattern matches nothing.
    """
    return by_group(graph, strengths, "strengths")
