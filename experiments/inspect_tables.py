"""What was found about a network, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.console.display import humanize
from experiments.inspected import COSTS, Report, halved, layers_of, totals_of
from experiments.pictures.cost_rows import in_words
from regularizers.channels.graph import ChannelGraph
from regularizers.channels.parts import PinGroup, layer_name
from regularizers.costs.cost import LayerCost

_HEADINGS = {"flops": "FLOPs", "size": "parameters"}  # which need no unit beside the number
_MOST_NAMES = 3  # in one cell


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
        if name not in COSTS:  # those are told above
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
