"""Shows the channel groups of a network, what they cost, and what is fixed and why.

    python -m experiments.inspect --seed_network=resnet8
    python -m experiments.inspect --model=package.module:attribute --input=1,224,224,3

MODEL is looked for in the current directory first. Its attribute is one of

    a Linen module, its class, or a function without arguments that returns one;
    an NNX module, its class, or a function of `rngs` (called with nnx.Rngs(0)) that returns one;
    a pair (fn, variables) with fn(variables, *inputs), or a function that returns one.

Nothing is computed: weights are abstract, so a large model takes seconds and no memory (only a
function without arguments is called as it is, and makes what it makes).

    --input=1,224,224,3         float32; once for every input, in order
    --input=1,77:int32          another dtype
    --input=mask=1,77:bool      by keyword
    --kwargs=train=False        static keyword arguments, as in a Python call
    --cost=edge_tpu,flops       what to count, instead of flops,size; again and again, too. One of
                                flops, size, activation_bytes, activation_peak, energy; latency on
                                edge_tpu, here (this machine, timed once) or V100, ...; or a sum:
                                --cost="0.5*flops + 0.5*edge_tpu"
    --plot=costs.png            draws what every layer costs, and a roofline for every latency;
                                .png, .svg or .pdf
    --picture=channels.svg      draws the graph; .html is the same with highlighting
    --json                      prints one JSON document instead of the tables

The JSON has the keys

    version, model               1, and what was asked for
    inputs[]                     name (null by position), shape, dtype
    groups[]                     name, width, exact, why_inexact, members[]: path, axis, kind,
                                 produces, consumes
    layers[]                     layer, flops, flops_share, parameters, parameters_share,
                                 operations[]: op, kernel, in, out (widths), in_axis, out_axis
                                 (a number, a group, {"sum": []} or {"product": []}), count
    costs[]                      of every --cost: name, unit, seed, halved (the share that is left
                                 when every group has half its width, rounded up), layers[]:
                                 layer, detail, cost, share; all shares add up to 1
    pins[]                       reason, source (file:line, "" where unknown), axes[]: path, axis,
                                 size; axes of size 1 or 0 are left out
    unknown[]                    primitive, source: operations without a rule
    totals                       equations, seconds, flops, parameters; free_flops and
                                 free_parameters (shares that go when every group has width 0);
                                 halved_flops and halved_parameters (shares that are left when
                                 every group has half its width, rounded up)
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console
from rich.table import Table
from rich.text import Text

import regularizers as reg
from experiments.console.display import humanize
from experiments.models import (
    ADVICE,
    Input,
    InspectError,
    arguments,
    cannot_trace,
    find_attribute,
    function_of,
    parse_input,
    parse_kwargs,
    telling,
)
from experiments.networks import SEED_NETWORKS, build
from experiments.pictures import cost_plots, svg
from experiments.pictures.cost_plots import in_words
from experiments.pictures.flow import count_equations
from regularizers.channels.graph import ChannelGraph
from regularizers.channels.parts import PinGroup, layer_name
from regularizers.costs.cost import Cost, LayerCost
from regularizers.costs.flops import operation_name
from regularizers.named import check_name, cost_named
from regularizers.primitives import axes as ax

_SEED_INPUT = "1,32,32,3"
_SEED_CLASSES = 10
_COSTS = ("flops", "size")
_HEADINGS = {"flops": "FLOPs", "size": "parameters"}  # which need no unit beside the number
_MOST_NAMES = 3  # in one cell
_CONSOLE_WIDTH = 160  # where there is no terminal


def define_flags() -> flags.FlagValues:
    """The flags of this command, which shares names, and no values, with experiments.run."""
    own = flags.FlagValues()
    flags.DEFINE_string("model", None, "package.module:attribute to inspect.", flag_values=own)
    flags.DEFINE_enum(
        "seed_network", None, list(SEED_NETWORKS), "Or a network of the registry.", flag_values=own
    )
    flags.DEFINE_multi_string(
        "input",
        [],
        f"[NAME=]SIZES[:DTYPE], once per input; {_SEED_INPUT} for a seed network if not given.",
        flag_values=own,
    )
    flags.DEFINE_string(
        "kwargs", "", "Static keyword arguments, e.g. train=False,depth=3.", flag_values=own
    )
    flags.DEFINE_multi_string(
        "cost", [",".join(_COSTS)], "Costs to show, separated by commas.", flag_values=own
    )
    flags.DEFINE_string(
        "plot", None, "Draw the costs into this .png, .svg or .pdf file.", flag_values=own
    )
    flags.DEFINE_string("picture", None, "Draw into this .svg or .html file.", flag_values=own)
    flags.DEFINE_bool("json", False, "Print one JSON document, nothing else.", flag_values=own)
    flags.DEFINE_integer("verbosity", 0, "1 shows the traceback of an error.", flag_values=own)
    flags.DEFINE_bool("help", False, "Show this help.", short_name="?", flag_values=own)
    return own


# ---- What was found


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that is shown about a network; `costs` are those asked for, by what they are called."""

    model: str
    inputs: tuple[Input, ...]
    graph: ChannelGraph
    flops: Cost
    parameters: Cost
    costs: Mapping[str, Cost]
    pins: tuple[PinGroup, ...]
    equations: int
    seconds: float


def make_report(
    model: str,
    inputs: Sequence[Input],
    graph: ChannelGraph,
    seconds: float,
    costs: Sequence[str] = _COSTS,
) -> Report:
    """Everything about a graph that took so many seconds to trace.

    Raises:
        InspectError: if a cost is unknown, or cannot be counted for this graph.
    """
    return Report(
        model=model,
        inputs=tuple(inputs),
        graph=graph,
        flops=reg.flops(graph),
        parameters=reg.model_size(graph),
        costs={name: _cost(graph, name) for name in costs},
        pins=graph.pins(),
        equations=count_equations(graph.jaxpr),
        seconds=seconds,
    )


def _cost(graph: ChannelGraph, name: str) -> Cost:
    try:
        return cost_named(graph, name)
    except ValueError as error:
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
    names = [*graph.layers, *(layer_name(v.path) for v in graph.variables.values() if v.trained)]
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
    for key, cost in (("flops", report.flops), ("parameters", report.parameters)):
        for line in cost.table():
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
    """The report as JSON; its keys are in this module's documentation."""
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
        "pins": [asdict(group) for group in report.pins],
        "unknown": [
            {"primitive": name, "source": source} for name, source in report.graph.unknown.items()
        ],
        "totals": totals_of(report),
    }


# ---- How it is shown


def show(report: Report, console: Console) -> None:
    """Prints the tables and the totals."""
    console.print(group_table(report.graph))
    console.print()
    console.print(layer_table(report))
    console.print()
    if report.pins:
        console.print(pin_table(report.pins))
        console.print()
    for name, source in report.graph.unknown.items():
        where = f" [{source}]" if source else ""
        console.print(
            Text(f"no rule for {name}: all that it touches is fixed{where}", "red"), soft_wrap=True
        )
    totals = totals_of(report)
    _say(
        console,
        f"{report.model}: {report.equations:,} equations, traced and inferred in "
        f"{report.seconds:.2f} s. Free: {totals['free_flops']:.1%} of "
        f"{humanize(totals['flops'], 'FLOP')}, {totals['free_parameters']:.1%} of "
        f"{humanize(totals['parameters'])} parameters; the rest is what fixed widths cost. With "
        f"every group halved: {totals['halved_flops']:.1%} of the FLOPs, "
        f"{totals['halved_parameters']:.1%} of the parameters.",
    )
    for name, cost in report.costs.items():
        if name not in _COSTS:  # those are told above
            share = f"{halved(cost):.1%} with every group halved"
            _say(console, f"{name}: {in_words(cost.seed, cost.unit)}; {share}.")


def _say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False, markup=False)


def group_table(graph: ChannelGraph) -> Table:
    """Every group: its width, whether dead channels are exactly zero, and who shares it."""
    table = Table(title="Channel groups", title_justify="left")
    table.add_column("group", overflow="fold")
    table.add_column("width", justify="right")
    for column in ("exact", "produced by", "consumed by"):
        table.add_column(column, overflow="fold")
    for group in graph.groups.values():
        members = [member for member in group.members if member.kind != "statistic"]
        table.add_row(
            Text(group.name),
            str(group.width),
            Text("yes") if group.exact else Text(f"no: {group.why_inexact}", "dark_orange"),
            _few(layer_name(m.path) for m in members if m.produces),
            _few(layer_name(m.path) for m in members if m.consumes),
        )
    return table


def layer_table(report: Report) -> Table:
    """Every layer with a product; what costs beside them, in the last rows."""
    table = Table(title="Layers", title_justify="left")
    for column in ("layer", "op", "in → out"):
        table.add_column(column, overflow="fold")
    for name in report.costs:
        table.add_column(Text(_HEADINGS.get(name, name)), justify="right")
        table.add_column("share", justify="right")
    booked = {name: cost.table() for name, cost in report.costs.items()}
    layers = layers_of(report)
    for layer in layers:
        if layer["operations"]:
            first, *more = layer["operations"]
            kernel = "×".join(map(str, first["kernel"]))
            times = f" +{len(more)}" if more else f" ×{first['count']}" * (first["count"] > 1)
            op = f"{first['op']} {kernel}".strip() + times
            cells = _cells(report, booked, {layer["layer"]})
            table.add_row(Text(layer["layer"]), op, f"{first['in']} → {first['out']}", *cells)
    products = {layer["layer"] for layer in layers if layer["operations"]}
    names = [layer["layer"] for layer in layers]
    names += [row.layer for rows in booked.values() for row in rows]
    others = [name for name in dict.fromkeys(names) if name not in products]
    # What belongs to no layer, such as an input, has a name in brackets.
    for name in [name for name in others if name.startswith("(")]:
        table.add_row(Text(name), "", "", *_cells(report, booked, {name}))
    others = [name for name in others if not name.startswith("(")]
    if others:
        name = f"{len(others)} without a product: {_few(iter(others))}"
        table.add_row(Text(name), "", "", *_cells(report, booked, set(others)))
    return table


def _cells(
    report: Report, booked: Mapping[str, Iterable[LayerCost]], layers: set[str]
) -> Iterator[str]:
    """What some layers cost together, and their share: two cells per cost."""
    for name, cost in report.costs.items():
        rows = [row for row in booked[name] if row.layer in layers]
        value = sum(row.cost for row in rows)
        yield humanize(value) if name in _HEADINGS else in_words(value, cost.unit)
        yield f"{sum(row.share for row in rows):.1%}"


def pin_table(pins: Sequence[PinGroup]) -> Table:
    """What is fixed: the reason, the line of the user's code, how many axes and which."""
    table = Table(title="Fixed widths", title_justify="left")
    table.add_column("reason", overflow="fold")
    table.add_column("axes", justify="right")
    table.add_column("e.g.", overflow="fold")
    table.add_column("where", overflow="fold")
    for pin in pins:
        examples = _few(f"{axis.path}[{axis.axis}] = {axis.size}" for axis in pin.axes)
        table.add_row(Text(pin.reason), str(len(pin.axes)), examples, Text(pin.source))
    return table


def _few(names: Iterator[str]) -> Text:
    distinct = list(dict.fromkeys(names))
    more = f", +{len(distinct) - _MOST_NAMES}" if len(distinct) > _MOST_NAMES else ""
    return Text(", ".join(distinct[:_MOST_NAMES]) + more)


# ---- The command


def run(options: flags.FlagValues) -> None:
    """Does what the flags ask for.

    Raises:
        InspectError: if it cannot be done.
    """
    if (options.model is None) == (options.seed_network is None):
        raise InspectError(
            "give either --model=package.module:attribute or --seed_network=NAME, "
            f"found {'neither' if options.model is None else 'both'}"
        )
    if options.picture:
        _check_picture(options.picture)
    if options.plot:
        _check_plot(options.plot)
    costs = _cost_names(options.cost)
    inputs = [parse_input(text) for text in options.input]
    if options.seed_network and not inputs:
        inputs = [parse_input(_SEED_INPUT)]
    if not inputs:
        raise InspectError(
            "no --input; give the shape of every input of the model, e.g. --input=1,224,224,3 or "
            "--input=1,77:int32"
        )
    kwargs = parse_kwargs(options.kwargs)
    name = options.model or options.seed_network
    model = find_attribute(name) if options.model else _seed_network(name, inputs)
    started = time.monotonic()
    fn, variables = function_of(model, name, inputs, kwargs)
    positional, named = arguments(inputs)
    with telling(cannot_trace(name, inputs), ADVICE):
        graph = reg.trace_channels(fn, variables, *positional, **named, **kwargs)
    report = make_report(name, inputs, graph, time.monotonic() - started, costs)
    if options.picture:
        svg.save(graph, options.picture, title=name)
    if options.plot:
        at = " and ".join(map(str, inputs))
        cost_plots.plot_costs(graph, report.costs, options.plot, f"{name} at {at}")
    if options.json:
        print(json.dumps(to_json(report), indent=2))
        return
    show(report, Console(width=None if sys.stdout.isatty() else _CONSOLE_WIDTH))
    for path in (options.picture, options.plot):
        if path:
            print(f"Drawn: {path}")


def _seed_network(name: str, inputs: Sequence[Input]) -> Any:
    shape = inputs[0].struct.shape
    if len(inputs) > 1 or len(shape) != 4:
        raise InspectError(
            f"--seed_network={name} takes one --input of batch, height, width, channels, e.g. "
            f"{_SEED_INPUT}; found {' and '.join(map(str, inputs))}"
        )
    height, width, channels = shape[1:]
    return build(name, input_shape=(height, width, channels), num_classes=_SEED_CLASSES)


def _check_picture(path: str) -> None:
    """Raises before any work is done."""
    try:
        svg.writer_of(path)
    except ValueError as error:
        raise InspectError(f"--picture={path}: {error}") from None
    if not Path(path).parent.is_dir():
        raise InspectError(f"--picture={path}: there is no directory {str(Path(path).parent)!r}")


def _check_plot(path: str) -> None:
    """Raises before any work is done."""
    try:
        cost_plots.check_path(path)
    except (ValueError, ImportError) as error:
        raise InspectError(f"--plot={path}: {error}") from None


def _cost_names(given: Sequence[str]) -> tuple[str, ...]:
    """The names in `--cost`, each once; raises before any work is done."""
    names = tuple(dict.fromkeys(name.strip() for text in given for name in text.split(",")))
    for name in names:
        try:
            check_name(name)
        except ValueError as error:
            raise InspectError(f"--cost={name}: {error}") from None
    return names


def main(argv: Sequence[str]) -> None:
    """The entry point of `python -m experiments.inspect`; `argv[0]` is the program's name."""
    options = define_flags()
    verbose = False
    try:
        rest = options(argv)
        verbose = options.verbosity > 0
        if options.help:
            print(f"{__doc__}\n{options.get_help()}")
            return
        if len(rest) > 1:
            raise InspectError(f"unexpected arguments: {' '.join(rest[1:])}; flags start with --")
        run(options)
    except (InspectError, flags.Error, OSError) as error:
        if verbose:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main(sys.argv)
