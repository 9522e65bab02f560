"""The channel graph as a picture: layers are boxes, groups are colours.

    picture.save(graph, "channels.svg", title="resnet8")   # or channels.html

Boxes stand in the order of the data flow, from top to bottom, as in Sugiyama's method: ranks by
longest path, one waypoint per source and rank for the lines that cross a rank, order within a rank
by barycentres, and places that are the least squares nearest to their neighbours'.
"""

from __future__ import annotations

import html
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from regularizers.channels import axes as ax
from regularizers.channels import jaxprs
from regularizers.channels.axes import Axis
from regularizers.channels.graph import ChannelGraph, Operation, layer_name
from regularizers.channels.jaxprs import Jaxpr, JaxprEqn, Literal, Var
from regularizers.channels.jaxprs import primitives as p
from regularizers.costs.flops import operation_name

# Okabe & Ito's colours, then Tol's muted ones: colour-blind readers can tell neighbours apart.
PALETTE = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442",
    "#882255", "#88CCEE", "#117733", "#DDCC77", "#332288", "#AA4499", "#44AA99",
)  # fmt: skip
_DARK = frozenset({"#0072B2", "#882255", "#117733", "#332288", "#AA4499", "#D55E00", "#009E73"})
_INK, _MUTED, _LINE = "#222222", "#6b6b6b", "#9a9a9a"

# Pixels.
_BOX_WIDTH, _BOX_HEIGHT, _STRIP = 210, 72, 15
_JOIN_SIZE, _PILL_HEIGHT, _WAYPOINT_WIDTH = 18, 24, 10
_COLUMN_GAP, _ROW_GAP, _MARGIN, _HEADER = 22, 30, 24, 62
_STRIP_CHARACTER, _NAME_CHARACTER = 5.4, 7.2  # how wide a character is at most, roughly
_SWEEPS = 10
_MOST_SEGMENTS = 6  # on one edge of a box

_JOINS = {
    p.add_p: ("+", "added"),
    p.sub_p: ("−", "subtracted"),
    p.mul_p: ("×", "multiplied"),
    p.concatenate_p: ("‖", "concatenated"),
}

Segment: TypeAlias = tuple[str, int]  # a group ("" where the width is fixed) and how many channels


@dataclass(frozen=True, kw_only=True)
class Node:
    """A box, or what stands between boxes.

    Attributes:
        kind: "layer", "table" (looked up, no product), "input" or "join".
        name: the layer's name; the symbol of a join.
        text: what else is written in the box.
        into: the groups that come in, in order, with their widths.
        out: likewise, those that go out.
    """

    kind: str
    name: str
    text: tuple[str, ...] = ()
    into: tuple[Segment, ...] = ()
    out: tuple[Segment, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Flow:
    """What is drawn: nodes in the order of the function, and the data flow between them.

    Attributes:
        nodes: in the order of first use.
        edges: for each pair of positions in `nodes`, the groups that flow (none: fixed widths).
    """

    nodes: tuple[Node, ...]
    edges: Mapping[tuple[int, int], tuple[str, ...]]


def save(graph: ChannelGraph, path: str | Path, title: str) -> None:
    """Draws `graph` into a file; its ending, .svg or .html, chooses the format.

    Raises:
        ValueError: for another ending.
        OSError: if the file cannot be written.
    """
    Path(path).write_text(writer_of(path)(graph, title), encoding="utf-8")


def writer_of(path: str | Path) -> Callable[[ChannelGraph, str], str]:
    """The function that draws what a file of this name holds.

    Raises:
        ValueError: if the name ends in neither .svg nor .html.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _WRITERS:
        raise ValueError(
            f"cannot draw into {str(path)!r}: the ending chooses the format, and "
            f"{repr(suffix) if suffix else 'no ending'} is none of {', '.join(_WRITERS)}."
        )
    return _WRITERS[suffix]


# ---- What is drawn


def flow_of(graph: ChannelGraph) -> Flow:
    """The layers of a graph and the data flow between them, read off its jaxpr.

    Where two different streams meet (a residual sum, a concatenation, a gate) stands a join.
    """
    tracer = _Tracer(graph=graph)
    tracer.walk(graph.jaxpr, tracer.inputs())
    return _pruned(tracer.nodes, tracer.edges)


@dataclass(kw_only=True)
class _Tracer:
    """Follows every value of a jaxpr back to the one node it comes from (None: a constant)."""

    graph: ChannelGraph
    nodes: list[Node] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)
    _layers: dict[str, int] = field(default_factory=dict)
    _joins: dict[tuple[str, frozenset[int]], int] = field(default_factory=dict)
    _operations: dict[int, list[Operation]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for operation in reversed(self.graph.operations):
            self._operations.setdefault(id(operation.params), []).append(operation)

    def inputs(self) -> list[int | None]:
        """The nodes of the jaxpr's inputs: one per table and per input array."""
        variables = list(self.graph.variables.values())
        tables = [v.kind == "table" and v.trained for v in variables]
        found = [
            self._add(Node(kind="table", name=layer_name(v.path), **self._table(v.axes, v.shape)))
            if table
            else None
            for v, table in zip(variables, tables, strict=True)
        ]
        given = self.graph.jaxpr.invars[len(variables) :]
        for i, var in enumerate(given):
            name = f"input {i}" if len(given) > 1 else "input"
            text = f"{getattr(var.aval, 'dtype', '')}[{', '.join(map(str, jaxprs.shape_of(var)))}]"
            found.append(self._add(Node(kind="input", name=name, text=(text,))))
        return found

    def walk(self, jaxpr: Jaxpr, inputs: Sequence[int | None]) -> list[int | None]:
        """The nodes that the outputs of `jaxpr` come from."""
        env: dict[Var, int | None] = dict(zip(jaxpr.invars, inputs, strict=True))
        env.update(dict.fromkeys(jaxpr.constvars))

        def read(v: Var | Literal) -> int | None:
            return None if isinstance(v, Literal) else env[v]

        for eqn in jaxprs.live_equations(jaxpr):
            sources = [read(v) for v in eqn.invars]
            operation = self._operation(eqn)
            results = None if operation else self._inside(eqn, sources)
            if operation:
                results = [self._operate(operation, sources)]
            elif results is None:
                results = [self._join(eqn, sources)] * len(eqn.outvars)
            env.update(zip(eqn.outvars, results, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def _inside(self, eqn: JaxprEqn, sources: list[int | None]) -> list[int | None] | None:
        """The results of an equation that runs other jaxprs; None if it does not.

        Their inputs are the last operands: all of a call's or a scan's, all but the index of a
        cond's, all but what only the condition of a while sees.
        """
        bodies = [
            body
            for body in map(_jaxpr, _values(eqn.params))
            if body is not None
            and len(body.outvars) == len(eqn.outvars)
            and len(body.invars) <= len(sources)
        ]
        if not bodies:
            return None
        each = [self.walk(body, sources[len(sources) - len(body.invars) :]) for body in bodies]
        return [self._join(eqn, outs) for outs in zip(*each, strict=True)]

    def _operation(self, eqn: JaxprEqn) -> Operation | None:
        waiting = self._operations.get(id(eqn.params), [])
        return (waiting.pop() if len(waiting) > 1 else waiting[0]) if waiting else None

    def _operate(self, operation: Operation, sources: Sequence[int | None]) -> int:
        """The box of an operation: one per layer, and one per product of activations."""
        kind, kernel, into, out = operation_name(operation)
        position = self._layers.get(operation.layer) if operation.kernel else None
        if position is None:
            if operation.kernel:
                ins, outs = self._segments([into]), self._segments([out])
            else:
                ins = self._groups((*operation.lhs, *operation.rhs), into)
                outs = self._groups(operation.out, out)
            summed, made = (ax.size(axis, self.graph.widths) for axis in (into, out))
            sizes = f"{summed} → {made}" if operation.kernel else f"over {summed}"
            position = self._add(
                Node(
                    kind="layer",
                    name=operation.layer,
                    text=(" ".join([kind, "×".join(map(str, kernel))]).strip(), sizes),
                    into=ins,
                    out=outs,
                )
            )
            if operation.kernel:
                self._layers[operation.layer] = position
        for source in sources:
            # A tied table is the layer's own kernel, and a layer that is called again feeds itself.
            own = source is not None and (
                self.nodes[source].kind == "table" and self.nodes[source].name == operation.layer
            )
            if source is not None and not own:
                self.edges.append((source, position))
        return position

    def _join(self, eqn: JaxprEqn, sources: Sequence[int | None]) -> int | None:
        """The node of what several streams were made into; no new one where there is one."""
        streams = frozenset(source for source in sources if source is not None)
        if len(streams) <= 1:
            return next(iter(streams), None)
        table = sources[0] if eqn.primitive is p.gather_p else None
        if table is not None and self.nodes[table].kind == "table":
            self.edges += [(s, table) for s in streams - {table}]  # its indices
            return table
        symbol, verb = _JOINS.get(eqn.primitive, ("·", eqn.primitive.name))
        key = symbol, streams
        if key not in self._joins:
            self._joins[key] = self._add(Node(kind="join", name=symbol, text=(verb,)))
            self.edges += [(source, self._joins[key]) for source in sorted(streams)]
        return self._joins[key]

    def _add(self, node: Node) -> int:
        self.nodes.append(node)
        return len(self.nodes) - 1

    def _segments(self, axes: Sequence[Axis]) -> tuple[Segment, ...]:
        return tuple(
            (group, self.graph.groups[group].width) if group else ("", width)
            for axis in axes
            for group, width in _leaves(axis)
        )

    def _groups(self, axes: Sequence[Axis], fallback: Axis) -> tuple[Segment, ...]:
        """Every group of `axes` once, where no single axis tells it all."""
        names = dict.fromkeys(group for axis in axes for group in ax.groups_of(axis))
        return self._segments(list(names)) or self._segments([fallback])

    def _table(self, axes: Sequence[Axis], shape: Sequence[int]) -> dict[str, Any]:
        return {
            "text": ("table", " × ".join(map(str, shape))),
            "out": self._groups(axes, shape[-1] if shape else 1),
        }


def _values(params: Mapping[str, Any]) -> Iterator[Any]:
    for value in params.values():
        yield from value if isinstance(value, tuple | list) else (value,)


def _jaxpr(value: Any) -> Jaxpr | None:
    if isinstance(value, jaxprs.ClosedJaxpr):
        return value.jaxpr
    return value if isinstance(value, Jaxpr) else None


def count_equations(jaxpr: Jaxpr) -> int:
    """The equations that a jaxpr's outputs depend on, those of inner jaxprs included."""
    total = 0
    for eqn in jaxprs.live_equations(jaxpr):
        inner = [body for body in map(_jaxpr, _values(eqn.params)) if body is not None]
        total += sum(map(count_equations, inner)) if inner else 1
    return total


def _leaves(axis: Axis) -> Iterator[Segment]:
    """The groups and fixed stretches of an axis, in order."""
    match axis:
        case int():
            yield "", axis
        case str():
            yield axis, 0
        case ax.Sum(children) | ax.Product(children):
            for child in children:
                yield from _leaves(child)


def _pruned(nodes: Sequence[Node], edges: Sequence[tuple[int, int]]) -> Flow:
    """Leaves out joins and inputs that reach no layer, and lines that would run backwards."""
    forward = sorted({(a, b) for a, b in edges if a < b or nodes[b].kind == "table"})
    successors = defaultdict(list)
    for a, b in forward:
        successors[a].append(b)
    kept = {i for i, node in enumerate(nodes) if node.kind in ("layer", "table")}
    for i in reversed(range(len(nodes))):
        if any(b in kept for b in successors[i]):
            kept.add(i)
    # Inputs were added after the tables that they are looked up in.
    order = sorted(kept, key=lambda i: (nodes[i].kind != "input", nodes[i].kind != "table", i))
    place = {old: new for new, old in enumerate(order)}
    chosen = [nodes[i] for i in order]
    pairs = [(place[a], place[b]) for a, b in forward if a in place and b in place]
    pairs = sorted(pair for pair in pairs if pair[0] < pair[1])
    before = defaultdict(list)
    for a, b in pairs:
        before[b].append(a)
    for b, node in enumerate(chosen):
        if node.kind == "join":  # it hands on all that comes in
            out = dict.fromkeys(s for a in before[b] for s in chosen[a].out if s[0])
            chosen[b] = Node(
                kind="join", name=node.name, text=node.text, into=tuple(out), out=tuple(out)
            )
    groups = [{group for group, _ in node.into if group} for node in chosen]
    flows = {
        (a, b): tuple(dict.fromkeys(g for g, _ in chosen[a].out if g in groups[b]))
        for a, b in pairs
    }
    return Flow(nodes=tuple(chosen), edges=flows)


# ---- Where it is drawn


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Places in pixels.

    Attributes:
        x: the middle of every node.
        y: the upper edge of every node.
        lines: for each edge, the points it goes through, with its groups.
        width: of the whole.
        height: of the whole.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    lines: Mapping[tuple[int, int], tuple[tuple[float, float, float], ...]]  # (x, top, bottom)
    width: float
    height: float


def lay_out(flow: Flow) -> Layout:
    """Places the nodes of `flow`, and waypoints for lines that cross a rank."""
    n = len(flow.nodes)
    ranks = _ranks(n, flow.edges)
    widths = [float(_size(node)[0]) for node in flow.nodes]
    waypoints: dict[tuple[int, int], int] = {}  # (source, rank): lines from one source share them
    routes: dict[tuple[int, int], list[int]] = {}
    for a, b in flow.edges:
        route = [a]
        for rank in range(ranks[a] + 1, ranks[b]):
            if (a, rank) not in waypoints:
                waypoints[a, rank] = len(widths)
                widths.append(_WAYPOINT_WIDTH)
                ranks.append(rank)
            route.append(waypoints[a, rank])
        routes[a, b] = [*route, b]
    links = {pair for route in routes.values() for pair in itertools.pairwise(route)}
    rows: list[list[int]] = [[] for _ in range(max(ranks, default=-1) + 1)]
    for i, rank in enumerate(ranks):
        rows[rank].append(i)
    x = _columns(rows, links, widths)
    tops, heights, y = [], [], float(_MARGIN + _HEADER)
    for row in rows:
        height = max((_size(flow.nodes[i])[1] for i in row if i < n), default=0)
        tops.append(y)
        heights.append(height)
        y += height + _ROW_GAP
    left = min((x[i] - widths[i] / 2 for i in range(len(x))), default=0.0) - _MARGIN
    x = [value - left for value in x]
    y_of = [
        tops[ranks[i]] + (heights[ranks[i]] - _size(node)[1]) / 2
        for i, node in enumerate(flow.nodes)
    ]

    def point(i: int) -> tuple[float, float, float]:
        if i < n:
            return x[i], y_of[i], y_of[i] + _size(flow.nodes[i])[1]
        return x[i], tops[ranks[i]], tops[ranks[i]] + heights[ranks[i]]

    return Layout(
        x=tuple(x[:n]),
        y=tuple(y_of),
        lines={edge: tuple(map(point, route)) for edge, route in routes.items()},
        width=max([_MINIMUM_WIDTH, *(x[i] + widths[i] / 2 + _MARGIN for i in range(len(x)))]),
        height=y - _ROW_GAP + _MARGIN,
    )


_MINIMUM_WIDTH = 640.0  # the header's


def _size(node: Node) -> tuple[int, int]:
    if node.kind == "join":
        return _JOIN_SIZE, _JOIN_SIZE
    return _BOX_WIDTH, _PILL_HEIGHT if node.kind == "input" else _BOX_HEIGHT


def _ranks(n: int, edges: Mapping[tuple[int, int], Any]) -> list[int]:
    """The longest path to every node; what nothing leads to stands just above its first user."""
    before, after = defaultdict(list), defaultdict(list)
    for a, b in edges:
        before[b].append(a)
        after[a].append(b)
    ranks = [0] * n
    for b in range(n):  # edges lead to later nodes
        ranks[b] = max((ranks[a] + 1 for a in before[b]), default=0)
    for a in reversed(range(n)):
        if not before[a] and after[a]:
            ranks[a] = max(0, min(ranks[b] for b in after[a]) - 1)
    return ranks


def _columns(
    rows: list[list[int]], links: set[tuple[int, int]], widths: Sequence[float]
) -> list[float]:
    """Sorts every row in place by barycentre, and gives the middle of every node."""
    above, below = defaultdict(list), defaultdict(list)
    for a, b in links:
        above[b].append(a)
        below[a].append(b)
    x = [0.0] * len(widths)
    for row in rows:
        _place(row, [float(k * _BOX_WIDTH) for k in range(len(row))], widths, x)
    for sweep in range(2 * _SWEEPS):
        near = above if sweep % 2 == 0 else below
        for row in rows if sweep % 2 == 0 else rows[::-1]:
            wanted = {i: _mean([(x[j], _weight(widths[j])) for j in near[i]], x[i]) for i in row}
            if sweep < _SWEEPS:  # then the order stays, and only the places settle
                row.sort(key=wanted.__getitem__)
            # Rows of one node are the spine of the picture: without it, skips push it sideways.
            _place(row, [wanted[i] for i in row] if len(row) > 1 else [0.0], widths, x)
    return x


def _weight(width: float) -> int:
    """Boxes stay in line; a bend at a waypoint hurts nobody."""
    return 1 if width == _WAYPOINT_WIDTH else 6


def _mean(weighted: Sequence[tuple[float, int]], default: float) -> float:
    total = sum(weight for _, weight in weighted)
    return sum(value * weight for value, weight in weighted) / total if total else default


def _place(
    row: Sequence[int], wanted: Sequence[float], widths: Sequence[float], x: list[float]
) -> None:
    """Puts a row nearest to where it wants to be, without overlaps: pool adjacent violators."""
    offset, offsets = 0.0, []
    for k, i in enumerate(row):
        if k:
            offset += (widths[row[k - 1]] + widths[i]) / 2 + _COLUMN_GAP
        offsets.append(offset)
    pools: list[tuple[float, int, int]] = []  # mean, weight and number of what moves together
    for k, i in enumerate(row):
        mean, weight, count = wanted[k] - offsets[k], _weight(widths[i]), 1
        while pools and pools[-1][0] > mean:
            other, heavy, many = pools.pop()
            mean = (mean * weight + other * heavy) / (weight + heavy)
            weight, count = weight + heavy, count + many
        pools.append((mean, weight, count))
    shifts = [mean for mean, _, count in pools for _ in range(count)]
    for i, shift, offset in zip(row, shifts, offsets, strict=True):
        x[i] = shift + offset


# ---- How it is drawn


def to_svg(graph: ChannelGraph, title: str) -> str:
    """The picture as one SVG document.

    Args:
        graph: what `trace_channels` found.
        title: written above the picture.
    """
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + _svg(graph, title)


def to_html(graph: ChannelGraph, title: str) -> str:
    """The picture as a page of its own: the SVG, a list of the groups, and highlighting.

    Args:
        graph: what `trace_channels` found.
        title: written above the picture.
    """
    colors = color_of(graph)
    items = "\n".join(
        f'<li class="g{i}" data-g="g{i}"><i style="background:{colors[name]}"></i>'
        f"{html.escape(name)} <b>{group.width}</b>{'' if group.exact else ' inexact'}</li>"
        for i, (name, group) in enumerate(graph.groups.items())
    )
    return _PAGE.format(
        title=html.escape(title), count=len(graph.groups), items=items, svg=_svg(graph, title)
    )


_WRITERS: dict[str, Callable[[ChannelGraph, str], str]] = {".svg": to_svg, ".html": to_html}


def color_of(graph: ChannelGraph) -> dict[str, str]:
    """The colour of every group; with more groups than colours they come round again."""
    return dict(zip(graph.groups, itertools.cycle(PALETTE), strict=False))


@dataclass(frozen=True, kw_only=True)
class _Style:
    """What a group looks like."""

    colors: Mapping[str, str]
    classes: Mapping[str, str]

    def fill(self, group: str) -> str:
        return self.colors[group] if group else "url(#fixed)"

    def stroke(self, group: str) -> str:
        return self.colors[group] if group else _LINE

    def ink(self, group: str) -> str:
        return "#ffffff" if group and self.colors[group] in _DARK else _INK


def _svg(graph: ChannelGraph, title: str) -> str:
    flow = flow_of(graph)
    layout = lay_out(flow)
    style = _Style(
        colors=color_of(graph), classes={name: f"g{i}" for i, name in enumerate(graph.groups)}
    )
    width, height = round(layout.width), round(layout.height)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="Helvetica, Arial, sans-serif">',
        _DEFS,
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        *_header(title, graph, flow),
        *_lines(flow, layout, style),
    ]
    for node, x, y in zip(flow.nodes, layout.x, layout.y, strict=True):
        draw = {"join": _draw_join, "input": _draw_input}.get(node.kind, _draw_box)
        parts += draw(node, x, y, style)
    return "\n".join([*parts, "</svg>\n"])


def _header(title: str, graph: ChannelGraph, flow: Flow) -> Iterator[str]:
    layers = sum(node.kind == "layer" for node in flow.nodes)
    yield _text(_MARGIN, 30, title, size=16, weight="bold", anchor="start")
    yield _text(_MARGIN, 48, f"{layers} layers, {len(graph.groups)} channel groups", anchor="start")
    yield (
        f'<rect x="{_MARGIN}" y="58" width="26" height="11" rx="2" fill="{PALETTE[0]}"/>'
        f'<rect x="{_MARGIN + 30}" y="58" width="26" height="11" rx="2" fill="{PALETTE[1]}"/>'
    )
    words = "one colour: one group, which shrinks together"
    yield _text(_MARGIN + 62, 67, words, size=10, anchor="start")
    yield (
        f'<rect x="{_MARGIN + 300}" y="58" width="26" height="11" rx="2" fill="url(#fixed)" '
        f'stroke="{_LINE}" stroke-width="0.5"/>'
    )
    words = "fixed width    + added   × multiplied   ‖ concatenated"
    yield _text(_MARGIN + 332, 67, words, size=10, anchor="start")


def _lines(flow: Flow, layout: Layout, style: _Style) -> Iterator[str]:
    """The data flow; what lines from one source share is drawn once."""
    drawn: set[tuple[Any, ...]] = set()
    ports = [_ports(node, x) for node, x in zip(flow.nodes, layout.x, strict=True)]
    for (a, b), groups in flow.edges.items():
        points = layout.lines[a, b]
        for lane, group in enumerate(groups or ("",)):
            shift = 4.0 * (lane - (len(groups or ("",)) - 1) / 2)
            start = ports[a][1].get(group, points[0][0] + shift)
            end = ports[b][0].get(group, points[-1][0] + shift)
            xs = [start, *(x + shift for x, _, _ in points[1:-1]), end]
            dash = "" if group else ' stroke-dasharray="4 3"'
            mark = style.classes.get(group, "fixed")
            for k, ((_, top, bottom), (_, below, _)) in enumerate(itertools.pairwise(points)):
                first = bottom
                path = _curve(xs[k], first, xs[k + 1], below)
                if k:  # through the row of a waypoint
                    path = f"M{xs[k]:.1f} {top:.1f}V{bottom:.1f}" + path[path.index("C") :]
                if (group, path) not in drawn:
                    drawn.add((group, path))
                    yield (
                        f'<path class="flow {mark}" d="{path}" fill="none" '
                        f'stroke="{style.stroke(group)}" stroke-width="2"{dash}/>'
                    )


def _curve(x: float, y: float, to_x: float, to_y: float) -> str:
    middle = (y + to_y) / 2
    return f"M{x:.1f} {y:.1f}C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {to_y:.1f}"


def _ports(node: Node, x: float) -> tuple[dict[str, float], dict[str, float]]:
    """Where on the upper and lower edge of a box each group's line ends."""
    if node.kind == "join":
        return {}, {}
    found: tuple[dict[str, float], dict[str, float]] = ({}, {})
    for ports, segments in zip(found, (node.into, node.out), strict=True):
        for (group, _), left, width in _spread(segments, x - _BOX_WIDTH / 2):
            ports.setdefault(group, left + width / 2)
        if len(segments) > _MOST_SEGMENTS:
            for group, _ in segments:
                ports.setdefault(group, x + _BOX_WIDTH / 2 - 14)
    return found


def _spread(segments: Sequence[Segment], left: float) -> Iterator[tuple[Segment, float, float]]:
    """The segments that are shown side by side, with left edge and width."""
    shown = segments[:_MOST_SEGMENTS]
    room = _BOX_WIDTH - (28 if len(segments) > len(shown) else 0)
    for k, segment in enumerate(shown):
        yield segment, left + k * room / len(shown), room / len(shown)


def _draw_box(node: Node, x: float, y: float, style: _Style) -> Iterator[str]:
    left = x - _BOX_WIDTH / 2
    groups = dict.fromkeys(style.classes[g] for g, _ in (*node.into, *node.out) if g)
    name = html.escape(node.name, quote=True)
    yield f'<g class="{" ".join([node.kind, *groups])}" data-layer="{name}">'
    yield f"<title>{html.escape(_tooltip(node))}</title>"
    dash = ' stroke-dasharray="5 3"' if node.kind == "table" else ""
    yield (
        f'<rect class="box" x="{left:.1f}" y="{y:.1f}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" '
        f'rx="5" fill="#fbfbfb" stroke="{_INK}" stroke-width="1"{dash}/>'
    )
    for segments, top in ((node.into, y), (node.out, y + _BOX_HEIGHT - _STRIP)):
        yield from _draw_strip(segments, left, top, style)
    most = int(_BOX_WIDTH / _NAME_CHARACTER)
    yield _text(x, y + _STRIP + 16, _tail(node.name, most), size=12, weight="bold")
    yield _text(x, y + _STRIP + 32, "   ".join(node.text), size=11, color=_MUTED)
    yield "</g>"


def _draw_strip(
    segments: Sequence[Segment], left: float, top: float, style: _Style
) -> Iterator[str]:
    """One edge of a box: every group with its name and width."""
    for (group, size), start, width in _spread(segments, left):
        mark = style.classes.get(group, "fixed")
        yield (
            f'<rect class="edge {mark}" x="{start + 1:.1f}" y="{top + 1:.1f}" '
            f'width="{width - 2:.1f}" height="{_STRIP - 2}" rx="3" fill="{style.fill(group)}"/>'
        )
        room = int((width - 6) / _STRIP_CHARACTER) - len(f" {size}")
        label = f"{_tail(group, room)} {size}".strip() if room > 2 else str(size)
        middle = start + width / 2
        yield _text(middle, top + 11, label, size=9, color=style.ink(group))
    if len(segments) > _MOST_SEGMENTS:
        more = f"+{len(segments) - _MOST_SEGMENTS}"
        yield _text(left + _BOX_WIDTH - 14, top + 11, more, size=9)


def _draw_join(node: Node, x: float, y: float, style: _Style) -> Iterator[str]:
    color = style.stroke(node.out[0][0] if node.out else "") if len(node.out) < 2 else _INK
    marks = " ".join(["join", *(style.classes[g] for g, _ in node.out)])
    radius = _JOIN_SIZE / 2
    yield f'<g class="{marks}"><title>{html.escape(_tooltip(node))}</title>'
    yield (
        f'<circle cx="{x:.1f}" cy="{y + radius:.1f}" r="{radius - 1}" fill="#ffffff" '
        f'stroke="{color}" stroke-width="2"/>'
    )
    yield _text(x, y + radius + 4.5, node.name, size=13) + "</g>"


def _draw_input(node: Node, x: float, y: float, style: _Style) -> Iterator[str]:
    del style
    yield f'<g class="input"><title>{html.escape(_tooltip(node))}</title>'
    yield (
        f'<rect x="{x - _BOX_WIDTH / 2:.1f}" y="{y:.1f}" width="{_BOX_WIDTH}" '
        f'height="{_PILL_HEIGHT}" rx="12" fill="url(#fixed)" stroke="{_LINE}"/>'
    )
    yield _text(x, y + 16, " ".join([node.name, *node.text]), size=11) + "</g>"


def _tooltip(node: Node) -> str:
    def listed(segments: Sequence[Segment]) -> str:
        return ", ".join(f"{group or 'fixed'} {width}" for group, width in segments) or "nothing"

    if node.kind == "join":
        return f"{', '.join(node.text)}: {listed(node.out)}"
    lines = [f"{node.name}: {'  '.join(node.text)}"]
    if node.into:
        lines.append(f"in: {listed(node.into)}")
    if node.out:
        lines.append(f"out: {listed(node.out)}")
    return "\n".join(lines)


def _tail(name: str, most: int) -> str:
    """`name`, or its last characters: the ends of paths tell layers apart."""
    return name if len(name) <= most else "…" + name[len(name) - max(1, most - 1) :]


def _text(
    x: float,
    y: float,
    words: str,
    *,
    size: int = 12,
    weight: str = "normal",
    color: str = _INK,
    anchor: str = "middle",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" '
        f'fill="{color}" text-anchor="{anchor}" xml:space="preserve">{html.escape(words)}</text>'
    )


_DEFS = (
    '<defs><pattern id="fixed" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect width="6" height="6" fill="#eeeeee"/>'
    '<line x1="0" y1="0" x2="0" y2="6" stroke="#cccccc" stroke-width="3"/></pattern></defs>'
)

_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ margin: 0; display: flex; height: 100vh; font: 13px Helvetica, Arial, sans-serif; }}
nav {{ width: 300px; flex: none; overflow: auto; border-right: 1px solid #ccc; padding: 12px; }}
main {{ flex: auto; overflow: auto; }}
ul {{ list-style: none; padding: 0; }}
li {{ padding: 3px; cursor: pointer; overflow-wrap: anywhere; }}
li i {{ display: inline-block; width: 14px; height: 10px; margin-right: 6px; border-radius: 2px; }}
.dim .flow, .dim g, .dim li {{ opacity: 0.13; }}
.dim .on, .dim .on * {{ opacity: 1; }}
</style>
<nav>
<h3>{count} channel groups</h3>
<p>Point at a group, or at an edge of a box, to see where it goes; click to keep it.</p>
<ul>
{items}
</ul>
</nav>
<main>
{svg}</main>
<script>
let kept = null;
function show(group) {{
  document.body.classList.toggle("dim", group !== null);
  document.querySelectorAll(".on").forEach(e => e.classList.remove("on"));
  if (group) document.querySelectorAll("." + group).forEach(e => e.classList.add("on"));
}}
const own = e => (e.target.closest("li, .edge, .flow")?.getAttribute("class") ?? "")
  .split(" ").find(c => /^g[0-9]+$/.test(c)) ?? null;
document.addEventListener("mouseover", e => show(own(e) ?? kept));
document.addEventListener("click", e => {{ kept = own(e) === kept ? null : own(e); show(kept); }});
</script>
</html>
"""
