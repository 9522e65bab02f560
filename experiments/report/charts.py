"""Charts as SVG that takes its colours from the page: light or dark, on paper or on a screen.

No library draws both these and the PNG files. Matplotlib, which draws the latter, fixes colours and
sizes when it draws, and is an extra; a page must be light or dark as its reader is, keep its words
at 11 pixels on a phone, tell values where one points, run no script, and need no extra.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from experiments.pictures.names import tail
from experiments.pictures.plots import Point, pareto_front
from experiments.report.tables import esc

_WIDTH = 880
_NAME_LENGTH = 34  # characters
_CHARACTER = 7.0  # pixels of one at most, in a name
_SERIES = 5  # colours that the page has
_LABEL_ROOM = 130
_LEFT, _RIGHT = 56, 16
_TEXT, _LEAST_TEXT = 12, 11  # pixels of words as drawn, and as shown at the least
# What tells series apart beside their colours, at the origin.
_SHAPES = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "M-4-4h8v8h-8z",
    "M0-5l5 9h-10z",
    "M0-5.5l5.5 5.5-5.5 5.5-5.5-5.5z",
    "M0 5l5-9h-10z",
)


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One row of a bar chart: outlined what was, filled what is.

    Attributes:
        name: at its left; long names lose their beginning.
        seed: before.
        now: after.
        between: a mark between the two, e.g. the width before expansion.
        label: at its right.
        removed: struck out.
    """

    name: str
    seed: float
    now: float
    between: float | None = None
    label: str = ""
    removed: bool = False


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a line chart; points of (step, value)."""

    label: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False


def bar_chart(bars: Sequence[Bar], alt: str) -> str:
    """Bars from top to bottom, one per layer, all on one scale."""
    row = 22 if len(bars) <= 40 else 15
    widest = max([1e-30, *(max(b.seed, b.now, b.between or 0.0) for b in bars)])
    names = [tail(bar.name, _NAME_LENGTH) for bar in bars]
    left = 10 + _CHARACTER * max(map(len, names), default=0)  # of the bars
    scale = (_WIDTH - left - _LABEL_ROOM) / widest
    parts = []
    for k, (bar, name) in enumerate(zip(bars, names, strict=True)):
        top, tall = k * row + 3, row - 6
        middle = top + tall / 2
        mark = "removed" if bar.removed else "wider" if bar.now > bar.seed else "now"
        parts.append(f'<g class="{mark}"><title>{esc(bar.name)}: {esc(bar.label)}</title>')
        parts.append(text(left - 10, middle + 4, name, "name"))
        if bar.removed:
            length = 6.4 * len(name)
            start = left - 10 - length
            parts.append(f'<path class="strike" d="M{start:.0f} {middle:.1f}h{length:.0f}"/>')
        parts.append(_rect(left, top, max(1.0, bar.seed * scale), tall, "seed"))
        if bar.now > 0:
            parts.append(_rect(left, top + 2, bar.now * scale, tall - 4, "fill"))
        if bar.between is not None and not bar.removed:
            x = left + bar.between * scale
            diamond = f"M{x - 4:.1f} {middle:.1f}l4-4 4 4-4 4z"
            parts.append(f'<path class="between" d="{diamond}"/>')
        right = left + max(bar.seed, bar.now, bar.between or 0.0) * scale
        parts.append(text(right + 9, middle + 4, bar.label, "label"))
        parts.append("</g>")
    return svg(parts, _WIDTH, len(bars) * row + 6, alt, "bars")


def line_chart(
    curves: Sequence[Curve],
    phases: Sequence[tuple[str, float, float]],
    alt: str,
    *,
    log: bool = False,
    percent: bool = False,
) -> str:
    """Curves over the steps of a run, phases shaded in turn."""
    height, top, bottom = 170, 22, 24
    values = [y for curve in curves for _, y in curve.points]
    log = log and min(values) > 0
    across = _scale(phases[0][1], phases[-1][2], _LEFT, _WIDTH - _RIGHT)
    ticks, up = _axis(values, height - bottom, top, log)
    ticks = _possible(ticks, values) if percent else ticks
    parts = list(_shades(phases, across, top, height - bottom))
    for value in ticks:
        parts.append(f'<path class="grid" d="M{_LEFT} {up(value):.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(text(_LEFT - 8, up(value) + 4, _number(value, percent), "tick end"))
    for value in nice_ticks(phases[0][1], phases[-1][2], 6):
        parts.append(text(across(value), height - 6, f"{value:g}", "tick middle"))
    for k, curve in enumerate(curves):
        path = "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in curve.points)
        style = f"line s{k + 1}" + (" dashed" if curve.dashed else "")
        parts.append(f'<path class="{style}" d="M{path}"/>')
        if len(curve.points) < 30 and not curve.dashed:
            parts += [_dot(k, across(x), up(y)) for x, y in curve.points]
    key = _legend(curves) if len(curves) > 1 else ""
    return f'<div class="lines">{svg(parts, _WIDTH, height, alt, "lines")}{key}</div>'


def tradeoff_chart(points: Sequence[Point], alt: str, *, front: bool = True) -> str:
    """Accuracy against cost: a line per series, spreads as bars, the Pareto front behind.

    Args:
        points: to draw.
        alt: the same in words.
        front: whether the points can be compared, and have one front.
    """
    wide, height, top, bottom = 600, 320, 18, 44
    spreads = [
        point.accuracy + sign * (point.spread or 0.0) for point in points for sign in (-1, 1)
    ]
    if points[0].is_share:  # of at least a point or two, and none above 100 %
        spreads += [min(spreads) - 0.01, min(max(spreads) + 0.01, max(1.0, *spreads))]
    ticks, up = _axis(spreads, height - bottom, top, False)
    ticks = _possible(ticks, spreads) if points[0].is_share else ticks
    costs = [point.cost for point in points]
    at, across = _axis([*costs, 0.9 * max(costs), 1.1 * max(costs)], _LEFT, wide - _RIGHT, False)
    parts = []
    for value in ticks:
        parts.append(f'<path class="grid" d="M{_LEFT} {up(value):.1f}H{wide - _RIGHT}"/>')
        parts.append(text(_LEFT - 8, up(value) + 4, _number(value, points[0].is_share), "tick end"))
    for value in at:
        parts.append(text(across(value), height - 24, _number(value, True), "tick middle"))
    parts.append(text((_LEFT + wide) / 2, height - 5, "cost, share of the seed", "tick middle"))
    if front:
        first, *more = pareto_front(points)
        steps = "".join(f"H{across(p.cost):.1f}V{up(p.accuracy):.1f}" for p in more)
        start = f"M{across(first.cost):.1f} {up(first.accuracy):.1f}"
        parts.append(f'<path class="front" d="{start}{steps}H{wide - _RIGHT}"/>')
    names = list(dict.fromkeys(point.series for point in points))
    for k, name in enumerate(names):
        own = sorted((p for p in points if p.series == name), key=lambda point: point.cost)
        path = "L".join(f"{across(p.cost):.1f} {up(p.accuracy):.1f}" for p in own)
        style = f"s{k % _SERIES + 1}"
        parts.append(f'<path class="line {style}" d="M{path}"/>')
        for p in own:
            x, y = across(p.cost), up(p.accuracy)
            told = f"{name} {p.label}: {p.shown(p.accuracy)} at {p.cost:.1%} of the cost"
            if p.spread:
                low, high = up(p.accuracy - p.spread), up(p.accuracy + p.spread)
                parts.append(
                    f'<path class="error {style}" d="M{x:.1f} {low:.1f}V{high:.1f}'
                    f'M{x - 3:.1f} {low:.1f}h6M{x - 3:.1f} {high:.1f}h6"/>'
                )
                told += f", standard deviation {p.shown(p.spread)} of {p.runs} runs"
            parts.append(_dot(k, x, y, told))
    legend = _legend([Curve(label=name, points=()) for name in names], front=front)
    return svg(parts, wide, height, alt, "tradeoff") + legend


def svg(
    parts: Sequence[str],
    width: float,
    height: float,
    alt: str,
    kind: str,
    corner: tuple[float, float] = (0.0, 0.0),
) -> str:
    """A drawing.

    Args:
        parts: SVG.
        width: of what is seen of it.
        height: likewise.
        alt: the same in words.
        kind: its class.
        corner: the left and the top of what is seen.
    """
    left, top = corner
    least = math.ceil(width * _LEAST_TEXT / _TEXT)
    return (
        f'<div class="scroll" tabindex="0"><svg class="{kind}" role="img" '
        f'style="min-width:{least}px" '
        f'viewBox="{left:.0f} {top:.0f} {width:.0f} {height:.0f}">'
        f"<title>{esc(alt)}</title>{''.join(parts)}</svg></div>"
    )


def text(x: float, y: float, words: str, kind: str) -> str:
    """Words in a drawing; `kind` is their class."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{esc(words)}</text>'


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers from `low` to `high`, about `count` of them.

    Example:
        >>> nice_ticks(0.0, 97.0, 4)
        [0.0, 20.0, 40.0, 60.0, 80.0]
    """
    span = (high - low) or abs(high) or 1.0
    raw = span / max(1, count)
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(m for m in (1, 2, 5, 10) if m * power >= raw * 0.8)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, first + 12) if i * step <= high + step * 1e-9]


def _axis(
    values: Sequence[float], low_y: float, high_y: float, log: bool
) -> tuple[list[float], Callable[[float], float]]:
    """Ticks, and where a value is drawn; an axis of one value has room around it."""
    low, high = min(values), max(values)
    if log:
        exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        every = max(1, len(exponents) // 4)
        scale = _scale(exponents[0], max(exponents[-1], exponents[0] + 1), low_y, high_y)
        return [10.0**e for e in exponents[::every]], lambda value: scale(math.log10(value))
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    low, high = low - (margin if low < 0 or low > margin else low), high + margin
    return nice_ticks(low, high, 4), _scale(low, high, low_y, high_y)


def _possible(ticks: Sequence[float], shares: Sequence[float]) -> list[float]:
    """The ticks up to 100 %, unless there are shares above."""
    return [tick for tick in ticks if tick <= max(1.0, *shares)]


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _shades(
    phases: Sequence[tuple[str, float, float]],
    across: Callable[[float], float],
    top: float,
    bottom: float,
) -> Iterator[str]:
    for (name, start, end), dark in zip(phases, itertools.cycle((False, True)), strict=False):
        left, width = across(start), across(end) - across(start)
        if dark:
            yield _rect(left, top, width, bottom - top, "shade")
        if width > 6.2 * len(name):
            yield text(left + width / 2, top - 8, name, "tick middle")


def _dot(k: int, x: float, y: float, told: str = "") -> str:
    """The mark of the k-th series."""
    title = f"<title>{esc(told)}</title>" if told else ""
    shape = f'<path class="dot s{k % _SERIES + 1}" d="{_SHAPES[k % len(_SHAPES)]}"'
    return f'{shape} transform="translate({x:.1f} {y:.1f})">{title}</path>'


def _legend(curves: Iterable[Curve], front: bool = False) -> str:
    items = []
    for k, curve in enumerate(curves):
        dashed = " dashed" if curve.dashed else ""
        line = f'<path class="line s{k % _SERIES + 1}{dashed}" d="M0 7h30"/>'
        mark = line + ("" if curve.dashed else _dot(k, 15, 7))
        picture = f'<svg class="mark" viewBox="0 0 30 14" aria-hidden="true">{mark}</svg>'
        items.append(f"<li>{picture}{esc(curve.label)}</li>")
    items += ['<li><i class="front"></i>Pareto front</li>'] if front else []
    return f'<ul class="legend">{"".join(items)}</ul>'


def _number(value: float, percent: bool) -> str:
    if percent:
        return f"{100 * value:.4g} %"
    return f"{value:g}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.0e}"


def _rect(x: float, y: float, width: float, height: float, kind: str) -> str:
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
        f'height="{height:.1f}" rx="1.5"/>'
    )
