"""Where the nodes of a flow are drawn."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.pictures.flow import Flow, Node

# Pixels.
BOX_WIDTH, BOX_HEIGHT, STRIP = 210, 76, 17


JOIN_SIZE, PILL_HEIGHT, _WAYPOINT_WIDTH = 18, 24, 10


_COLUMN_GAP, _ROW_GAP, MARGIN, _HEADER = 22, 30, 24, 62


_SWEEPS = 10


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
    tops, heights, y = [], [], float(MARGIN + _HEADER)
    for row in rows:
        height = max((_size(flow.nodes[i])[1] for i in row if i < n), default=0)
        tops.append(y)
        heights.append(height)
        y += height + _ROW_GAP
    left = min((x[i] - widths[i] / 2 for i in range(len(x))), default=0.0) - MARGIN
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
        width=max([_MINIMUM_WIDTH, *(x[i] + widths[i] / 2 + MARGIN for i in range(len(x)))]),
        height=y - _ROW_GAP + MARGIN,
    )


_MINIMUM_WIDTH = 700.0  # the header's


def _size(node: Node) -> tuple[int, int]:
    if node.kind == "join":
        return JOIN_SIZE, JOIN_SIZE
    return BOX_WIDTH, PILL_HEIGHT if node.kind == "input" else BOX_HEIGHT


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
        _place(row, [float(k * BOX_WIDTH) for k in range(len(row))], widths, x)
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
