"""All that is known about a traced network: its groups, layers, costs and pins, also as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import regularizers as reg
from experiments.inspected_pins import Freed, freed
from experiments.models import (
    Input,
    InspectError,
)
from experiments.pictures.flow import count_equations
from regularizers.channels.graph import ChannelGraph
from regularizers.channels.parts import layer_name
from regularizers.costs.cost import Cost
from regularizers.costs.flops import operation_name
from regularizers.errors import MorphError
from regularizers.named import cost_named
from regularizers.primitives import axes as ax

COSTS = ("flops", "size")


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that is shown about a network; `costs` are those asked for, by what they are called."""

    model: str
    inputs: tuple[Input, ...]
    graph: ChannelGraph
    flops: Cost
    parameters: Cost
    costs: Mapping[str, Cost]
    pins: tuple[Freed, ...]
    equations: int
    seconds: float


def make_report(
    model: str,
    inputs: Sequence[Input],
    graph: ChannelGraph,
    seconds: float,
    costs: Sequence[str] = COSTS,
) -> Report:
    """Everything about a graph that took so many seconds to trace.

    Raises:
        InspectError: if a cost is unknown, or cannot be counted for this graph.
    """
    flops, parameters = reg.flops(graph), reg.model_size(graph)
    return Report(
        model=model,
        inputs=tuple(inputs),
        graph=graph,
        flops=flops,
        parameters=parameters,
        costs={name: _cost(graph, name) for name in costs},
        pins=tuple(freed(graph, flops, parameters, graph.pins())),
        equations=count_equations(graph.jaxpr),
        seconds=seconds,
    )


def _cost(graph: ChannelGraph, name: str) -> Cost:
    try:
        return cost_named(graph, name)
    except MorphError as error:
        raise InspectError(f"--cost={name}: {error}") from None


def totals_of(report: Report) -> dict[str, float]:
    """The last lines of a report: costs of the seed, and how much of them is free."""
    nothing = dict.fromkeys(report.graph.groups, 0)
    totals: dict[str, float] = {
        "equations": report.equations,
        "seconds": round(report.seconds, 3),
        "flops": report.flops(),
        "parameters": report.parameters(),
    }
    for name, cost in (("flops", report.flops), ("parameters", report.parameters)):
        totals[f"free_{name}"] = 1 - _over(cost(nothing), cost())
        totals[f"halved_{name}"] = halved(cost)
    return totals


def halved(cost: Cost) -> float:
    """The share of a cost that is left when every group has half its width, rounded up."""
    return _over(cost({name: -(-width // 2) for name, width in cost.groups.items()}), cost())


def _over(part: float, whole: float) -> float:
    return part / whole if whole else 1.0


def layers_of(report: Report) -> list[dict[str, Any]]:
    """Every layer with its operations and costs: first those with a product, in order."""
    graph = report.graph
    rows: dict[str, dict[str, Any]] = {}
    operations: dict[str, dict[Any, dict[str, Any]]] = {}
    tables = {"flops": report.flops.table(), "parameters": report.parameters.table()}
    names = [*graph.layers, *(layer_name(v.path) for v in graph.variables.values() if v.trained)]
    names += [
        line.layer for lines in tables.values() for line in lines
    ]  # e.g. work without a price
    for name in dict.fromkeys(names):
        rows[name] = {"layer": name, "operations": [], "flops": 0.0, "flops_share": 0.0}
        rows[name] |= {"parameters": 0.0, "parameters_share": 0.0}
    for operation in graph.operations:
        kind, kernel, into, out = operation_name(operation)
        merged = operations.setdefault(operation.layer, {})
        shown = merged.setdefault(
            (kind, kernel, into, out),
            {
                "op": kind,
                "kernel": list(kernel),
                "in": int(ax.size(into, graph.widths)),
                "out": int(ax.size(out, graph.widths)),
                "in_axis": ax.to_json(into),
                "out_axis": ax.to_json(out),
                "count": 0,
            },
        )
        shown["count"] += operation.count
    for name, merged in operations.items():
        rows[name]["operations"] = list(merged.values())
    for key, lines in tables.items():
        for line in lines:
            rows[line.layer][key] += line.cost
            rows[line.layer][f"{key}_share"] += line.share
    return list(rows.values())


def costs_of(report: Report) -> list[dict[str, Any]]:
    """Every cost that was asked for: in all, and by layer."""
    return [
        {
            "name": name,
            "unit": cost.unit,
            "seed": cost.seed,
            "halved": halved(cost),
            "layers": [asdict(row) for row in cost.table()],
        }
        for name, cost in report.costs.items()
    ]


def to_json(report: Report) -> dict[str, Any]:
    """The report as JSON; its keys are in `morph inspect --help`."""
    return {
        "version": 1,
        "model": report.model,
        "inputs": [
            {"name": i.name, "shape": list(i.struct.shape), "dtype": str(i.struct.dtype)}
            for i in report.inputs
        ],
        "groups": [asdict(group) for group in report.graph.groups.values()],
        "layers": layers_of(report),
        "costs": costs_of(report),
        "pins": [
            {
                **asdict(one.pin),
                "right": one.right,
                "opens_flops": one.flops,
                "opens_parameters": one.parameters,
            }
            for one in report.pins
        ],
        "unknown": [
            {"primitive": name, "source": source} for name, source in report.graph.unknown.items()
        ],
        "totals": totals_of(report),
    }
