"""What was found about a network, as tables for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.console.display import humanize
from experiments.inspected import COSTS, Report, halved, layers_of, totals_of
from experiments.inspected_pins import Freed
from experiments.pictures.cost_rows import in_words
from regularizers.channels.graph import ChannelGraph
from regularizers.channels.parts import layer_name
from regularizers.costs.cost import LayerCost

_HEADINGS = {"flops": "FLOPs", "size": "parameters"}  # which need no unit beside the number
_MOST_NAMES = 3  # in one cell


def show(report: Report, console: Console) -> None:
    """Prints the tables and the totals."""
    console.print(group_table(report.graph))
    console.print()
    console.print(layer_table(report))
    console.print()
    if wrong := [one for one in report.pins if not one.right]:
        console.print(pin_table(wrong))
        console.print()
    if right := [one.pin for one in report.pins if one.right]:
        counts: Counter[str] = Counter()
        for pin in right:
            counts[pin.reason] += len(pin.axes)
        told = ", ".join(f"{reason} ({count})" for reason, count in counts.items())
        _say(console, f"Fixed as it should be: {told}.")
    for name, source in report.graph.unknown.items():
        where = f" [{source}]" if source else ""
        console.print(
            Text(f"no rule for {name}: all that it touches is fixed{where}", "red"), soft_wrap=True
        )
    totals = totals_of(report)
    _say(
        console,
        f"{report.model}: {report.equations:,} equations, traced and inferred in "
        f"{report.seconds:.2f} s. With every group halved: {totals['halved_flops']:.1%} of "
        f"{humanize(totals['flops'], 'FLOP')} and {totals['halved_parameters']:.1%} of "
        f"{humanize(totals['parameters'])} parameters are left; were no width fixed, it would be "
        "about 25 %.",
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


def pin_table(pins: Sequence[Freed]) -> Table:
    """What is fixed, and what else would go with every group halved if it were not; dearest first.

    The reason, how many axes and which, and the line of the user's code.
    """
    table = Table(title="Fixed widths, and what freeing them would open", title_justify="left")
    table.add_column("reason", overflow="fold")
    table.add_column("FLOPs", justify="right")
    table.add_column("parameters", justify="right")
    table.add_column("axes", justify="right")
    table.add_column("e.g.", overflow="fold")
    table.add_column("where", overflow="fold")
    for one in pins:
        pin = one.pin
        examples = _few(f"{axis.path}[{axis.axis}] = {axis.size}" for axis in pin.axes)
        opened = f"{one.flops:.1%}", f"{one.parameters:.1%}"
        table.add_row(Text(pin.reason), *opened, str(len(pin.axes)), examples, Text(pin.source))
    return table


def _few(names: Iterator[str]) -> Text:
    distinct = list(dict.fromkeys(names))
    more = f", +{len(distinct) - _MOST_NAMES}" if len(distinct) > _MOST_NAMES else ""
    return Text(", ".join(distinct[:_MOST_NAMES]) + more)
