"""Pictures of what a network costs: bars per layer, and where its products lie under a roofline.

matplotlib is optional, as in `plots`.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.console.display import humanize
from experiments.pictures.plots import (
    BLUE,
    GREEN,
    INK,
    LIGHT,
    MUTED,
    ORANGE,
    PURPLE,
    STYLE,
    plain,
    require_matplotlib,
    shortened,
)
from regularizers.channels.graph import ChannelGraph
from regularizers.costs.cost import SEEDS, Cost
from regularizers.errors import InputError

try:
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import EngFormatter, MaxNLocator
except ModuleNotFoundError:  # `require_matplotlib` tells
    pass
from experiments.pictures.cost_rows import (
    NO_PRODUCT,
    REST,
    Bars,
    Dot,
    Roofline,
    bars_of,
    in_words,
    roofline_of,
)

HERE = "here"  # the cost of this name is this machine's
SUFFIXES = (".png", ".svg", ".pdf")
_TITLE_WIDTH = 32  # characters, of a panel
_LABELLED = 5  # dots, or places with several
_LABEL_GAP = 0.085  # of the height of a roofline, between two labels
_LARGEST_DOT = 420.0  # points^2, of a dot with all of the time
_SMALLEST_DOT = 14.0
_GREY = "#9A9A9A"
# By kind of product; grey is what has none.
_KINDS = {
    "conv": BLUE,
    "transposed conv": "#56B4E9",
    "depthwise conv": ORANGE,
    "grouped conv": "#D55E00",
    "dense": GREEN,
    "product": PURPLE,
    "ragged": PURPLE,
}
_COLORS = {**_KINDS, NO_PRODUCT: _GREY, REST: LIGHT}


# ---- How it is drawn


def check_path(path: str | Path) -> None:
    """Raises before any work is done.

    Raises:
        MissingExtraError: if matplotlib is not installed.
        ValueError: if the file's ending is no format, or its directory is missing.
    """
    require_matplotlib()
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path.suffix!r} is none of {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise InputError(f"there is no directory {str(path.parent)!r}")


def plot_costs(
    graph: ChannelGraph, costs: Mapping[str, Cost], path: str | Path, title: str = ""
) -> None:
    """Draws what every layer costs, and a roofline for every cost that is a time.

    Args:
        graph: the channel graph of the network.
        costs: {what it is called: cost}; at least one.
        path: the file to write; its ending chooses the format (.png, .svg, .pdf).
        title: printed above; the network's name.

    Raises:
        MissingExtraError: if matplotlib is not installed.
        ValueError: if the file's ending is no format, its directory is missing, or there is no
            cost.
    """
    check_path(path)
    with mpl.rc_context(STYLE):
        draw_costs(graph, costs, title).savefig(path)


def draw_costs(graph: ChannelGraph, costs: Mapping[str, Cost], title: str = "") -> Figure:
    """The figure that `plot_costs` writes.

    Raises:
        MissingExtraError: if matplotlib is not installed. ValueError: if there is no cost.
    """
    require_matplotlib()
    if not costs:
        raise InputError("plot_costs needs at least one cost; got none.")
    bars = bars_of(graph, costs)
    found = (roofline_of(graph, name, cost) for name, cost in costs.items())
    rooflines = [roofline for roofline in found if roofline is not None and roofline.dots]
    width = max(8.6, 2.4 + 2.6 * len(costs))
    across = min(len(rooflines), max(1, int(width // 6.0)))
    down = math.ceil(len(rooflines) / across) if rooflines else 0
    heights = [1.1 + 0.21 * max(len(bars.rows), 4), *[4.0] * down]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, 0.8 + sum(heights)), layout="constrained")
        parts = figure.subfigures(1 + down, 1, height_ratios=heights, squeeze=False)[:, 0]
        _draw_bars(parts[0], bars, costs)
        for row, part in enumerate(parts[1:]):
            axes = part.subplots(1, across, squeeze=False)[0]
            for ax, roofline in zip(axes, rooflines[row * across :], strict=False):
                _draw_roofline(ax, roofline)
            for ax in axes[len(rooflines) - row * across :]:
                ax.remove()
        figure.suptitle(plain(title), x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
        present = [kind for kind in _COLORS if kind in bars.kinds]
        figure.legend(
            handles=[
                Line2D([], [], ls="", marker="s", ms=7, color=_COLORS[kind], label=kind)
                for kind in present
            ],
            loc="outside lower center",
            ncols=len(present) or 1,
            frameon=False,
        )
    return figure


def _draw_bars(part: SubFigure, bars: Bars, costs: Mapping[str, Cost]) -> None:
    """One panel per cost; all share the rows."""
    colors = [_COLORS[kind] for kind in bars.kinds]
    places = range(len(bars.rows))
    panels = part.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    for ax, (name, cost) in zip(panels, costs.items(), strict=True):
        values = np.asarray(bars.costs[name])
        whole = float(values.sum()) or 1.0
        scale, prefix = _scale(float(values.max(initial=0.0)), cost.unit)
        ax.barh(places, values / scale, height=0.68, color=colors)
        for y, value in enumerate(values):
            if value > 0.0:
                _beside(ax, f"{value / whole:.1%}", value / scale, y)
        ax.set_xlim(0, 1.24 * (float(values.max(initial=0.0)) / scale or 1.0))
        ax.set_title(_title(name, in_words(cost.seed, cost.unit)), fontsize=9.5)
        ax.set_xlabel(f"{prefix}{cost.unit}" if len(cost.unit) < 5 else f"{prefix} {cost.unit}")
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.grid(axis="x", color=LIGHT, linewidth=0.5, alpha=0.6)
        ax.set_axisbelow(True)
        ax.spines["left"].set_visible(False)
        ax.tick_params(axis="y", length=0, pad=6)
    panels[0].set_ylim(len(bars.rows) - 0.4, -0.6)
    panels[0].set_yticks(places, [shortened(row) for row in bars.rows], color=INK)


def _title(name: str, total: str) -> str:
    """In one line if that is short enough."""
    line = f"{name}: {total}"
    if len(line) <= _TITLE_WIDTH:
        return line
    return textwrap.fill(f"{name}:", _TITLE_WIDTH) + f"\n{total}"


def _beside(ax: Axes, text: str, x: float, y: float) -> None:
    ax.annotate(
        text,
        (x, y),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=7.5,
        color=INK,
    )


def _scale(largest: float, unit: str) -> tuple[float, str]:
    """What to divide by, and the SI prefix for it."""
    if unit == SEEDS or not largest > 0.0:
        return 1.0, ""
    power = 3 * math.floor(math.log10(largest) / 3)
    power = min(max(power, min(EngFormatter.ENG_PREFIXES)), max(EngFormatter.ENG_PREFIXES))
    return 10.0**power, EngFormatter.ENG_PREFIXES[power]


def _draw_roofline(ax: Axes, roofline: Roofline) -> None:
    """Dots by arithmetic intensity and rate, both logarithmic, under the roof if there is one."""
    dots, peak, bandwidth = roofline.dots, roofline.peak_flops_per_s, roofline.bytes_per_s
    ridge = peak / bandwidth if bandwidth else 0.0
    x = [dot.flops_per_byte for dot in dots] + [ridge] * bool(ridge)
    y = [dot.flops_per_s for dot in dots] + [peak] * bool(peak)
    left, right = min(x) / 2.5, max(max(x) * 2.5, ridge * 8)
    low, high = min(y) / 4, max(y) * 3
    ax.set(xscale="log", yscale="log", xlim=(left, right), ylim=(low, high))
    ax.set_xlabel("arithmetic intensity (FLOP/byte)")
    ax.set_ylabel("FLOP/s")
    ax.yaxis.set_major_formatter(EngFormatter(sep=""))
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.grid(color=LIGHT, linewidth=0.5, alpha=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(which="minor", length=0)
    where = "this machine" if roofline.name == HERE else roofline.name
    what = f"{'Roofline of' if bandwidth else 'Achieved on'} {where}, {roofline.dtype}"
    ax.set_title(f"{what}; area: share of time", fontsize=9.5)
    if bandwidth:
        ax.plot([left, ridge, right], [left * bandwidth, peak, peak], color=INK, lw=1.2, zorder=1)
        ax.axvline(ridge, color=MUTED, lw=0.7, ls=":", zorder=1)
        _note(ax, f"ridge at {ridge:.3g} FLOP/byte", (ridge, low), (-4, 5), "right")
        middle = math.sqrt(left * ridge)
        _note(ax, humanize(bandwidth, "B/s"), (middle, middle * bandwidth), (-6, 6), "right")
    elif peak:
        ax.axhline(peak, color=INK, lw=1.2, zorder=1)
    if peak:
        _note(ax, f"peak {humanize(peak, 'FLOP/s')}", (right, peak), (-2, 11), "right")
    ax.scatter(
        [dot.flops_per_byte for dot in dots],
        [dot.flops_per_s for dot in dots],
        s=[_SMALLEST_DOT + _LARGEST_DOT * dot.share for dot in dots],
        c=[_COLORS.get(dot.kind, _GREY) for dot in dots],
        alpha=0.75,
        edgecolors="white",
        linewidths=0.6,
        zorder=3,
    )
    _label_dots(ax, dots)


def _note(
    ax: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], side: str
) -> None:
    ax.annotate(
        text,
        at,
        xytext=offset,
        textcoords="offset points",
        ha=side,
        fontsize=7.5,
        color=MUTED,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
    )


def _label_dots(ax: Axes, dots: Sequence[Dot]) -> None:
    """Names the largest dots in a column right of the axes; those in one place are one."""
    places: dict[tuple[float, float], list[Dot]] = {}  # rate, intensity
    for dot in dots:
        place = float(f"{dot.flops_per_s:.3g}"), float(f"{dot.flops_per_byte:.3g}")
        places.setdefault(place, []).append(dot)
    shares = {place: sum(dot.share for dot in same) for place, same in places.items()}
    largest = sorted(shares, key=lambda place: -shares[place])[:_LABELLED]
    ordered = sorted(largest, reverse=True)  # so that leader lines do not cross
    low, high = np.log(ax.get_ylim())
    heights = [(math.log(rate) - low) / (high - low) for rate, _ in ordered]
    for (rate, intensity), height in zip(ordered, _spread(heights), strict=True):
        same = places[rate, intensity]
        times = f" ×{len(same)}" if len(same) > 1 else ""
        ax.annotate(
            f"{shortened(same[0].layer)}{times}  {shares[rate, intensity]:.1%}",
            (intensity, rate),
            xytext=(1.02, height),
            textcoords="axes fraction",
            va="center",
            fontsize=7.5,
            color=INK,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": MUTED, "lw": 0.5, "relpos": (0, 0.5)},
            zorder=2,
        )


def _spread(heights: Sequence[float]) -> list[float]:
    """Heights in falling order, moved apart to at least the gap between two labels."""
    placed: list[float] = []
    for height in heights:
        placed.append(min(height, placed[-1] - _LABEL_GAP) if placed else height)
    floor = 0.02
    for k in reversed(range(len(placed))):
        placed[k] = max(placed[k], floor)
        floor = placed[k] + _LABEL_GAP
    return placed
