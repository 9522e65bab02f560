"""Pictures of a run: what became of the widths, and how training went.

matplotlib is optional (`pip install "morph-jax[plots]"`). Figures are made without pyplot, so
nothing here touches the caller's own figures or needs a screen.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.pictures.names import tail
from morph.errors import need
from morph.untrusted import printable
from regularizers.errors import InputError

_missing: ModuleNotFoundError | None = None
try:
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter
except ModuleNotFoundError as error:
    _missing = error

# Okabe & Ito's colours, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
INK, MUTED, LIGHT = "#222222", "#777777", "#C8C8C8"
SERIES = (INK, BLUE, GREEN, ORANGE, PURPLE)  # of lines in one plot, in order
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": LIGHT,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "savefig.dpi": 160,
}
_LAYERS_PER_COLUMN = 32
_LONGEST_NAME = 36  # characters
_CHARACTERS_ACROSS = 115  # how many fit side by side above a panel; roughly


def plot_widths(
    rows: Sequence[tuple[str, int, int, int]], path: str | Path, title: str = "Learned widths"
) -> None:
    """Draws what every layer or group became, in network order, as MorphNet's paper does.

    Grey outline: the seed's width. Solid bar: the final width, blue where it is at most the
    seed's and orange where it is more. Diamond: the width after shrinking, before expansion.

    Args:
        rows: per layer its name, seed width, shrunk width and final width.
        path: the file to write; its ending chooses the format (.png, .svg, .pdf).
        title: printed above the bars.

    Raises:
        MissingExtraError: if matplotlib is not installed.
        ValueError: if there are no rows, or one is not a name and three widths >= 0.
    """
    require_matplotlib()
    if not rows:
        raise InputError("plot_widths needs at least one row (name, seed, shrunk, final).")
    for row in rows:
        if len(row) != 4 or min(row[1:]) < 0:
            raise InputError(
                f"plot_widths needs rows of (name, seed, shrunk, final), widths >= 0; got {row}."
            )
    columns = math.ceil(len(rows) / _LAYERS_PER_COLUMN)
    per_column = math.ceil(len(rows) / columns)
    widest = max(max(widths) for _, *widths in rows)
    with mpl.rc_context(STYLE):
        figure = Figure(
            figsize=(7.2 if columns == 1 else 5.4 * columns, 1.1 + 0.24 * max(per_column, 5)),
            layout="constrained",
        )
        axes = figure.subplots(1, columns, squeeze=False)[0]
        for column, ax in enumerate(axes):
            _draw_widths(ax, rows[column * per_column : (column + 1) * per_column], per_column)
            ax.set_xlim(0, 1.2 * max(1, widest))
            ax.set_xlabel("channels")
        figure.suptitle(plain(title), x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
        figure.legend(
            handles=[
                Patch(facecolor="white", edgecolor=MUTED, label="seed"),
                Line2D([], [], ls="", marker="D", ms=4, mfc="white", mec=INK, label="shrunk"),
                Patch(color=BLUE, label="final"),
                Patch(color=ORANGE, label="final, wider than the seed"),
            ],
            loc="outside lower center",
            ncols=4,
            frameon=False,
        )
        figure.savefig(path)


def _draw_widths(ax: "Axes", rows: Sequence[tuple[str, int, int, int]], slots: int) -> None:
    """Draws some layers from top to bottom on axes with room for `slots`."""
    for y, (_, seed, shrunk, final) in enumerate(rows):
        color = ORANGE if final > seed else BLUE
        ax.barh(y, final, height=0.62, color=color)
        ax.barh(y, seed, height=0.82, fill=False, edgecolor=MUTED, linewidth=0.7)
        ax.plot(shrunk, y, "D", ms=4, mfc="white", mec=INK, mew=0.8, clip_on=False, zorder=3)
        label = f"{final}" if final == seed else f"{final} / {seed}" if final else "removed"
        ax.annotate(
            label,
            (max(seed, shrunk, final), y),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
            color=INK,
        )
    ax.set_ylim(slots - 0.4, -0.6)
    ax.set_yticks(range(len(rows)), [shortened(name) for name, *_ in rows], color=INK)
    ax.tick_params(axis="y", length=0, pad=6)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.grid(axis="x", color=LIGHT, linewidth=0.5, alpha=0.6)
    ax.set_axisbelow(True)
    ax.spines["left"].set_visible(False)


def shortened(name: str) -> str:
    """Returns the end of a long name, which tells more than its beginning, as plain text."""
    return plain(tail(name, _LONGEST_NAME))


def plain(text: str) -> str:
    """Text for matplotlib: dollars are no formula, control characters are escapes."""
    return printable(text).replace("$", r"\$")


def entry(name: str) -> str:
    """A name for a legend, which leaves out what begins with an underscore."""
    return plain(f" {name}" if name.startswith("_") else name)


# Per panel: its title, and the records' keys it shows with their label, colour and line style.
_PANELS: tuple[tuple[str, tuple[tuple[str, str, str, str], ...]], ...] = (
    ("Loss", (("loss", "loss", BLUE, "-"),)),
    ("Test accuracy", (("test_accuracy", "test accuracy", GREEN, "-"),)),
    (
        "Cost, share of the seed",
        (("cost_ratio", "alive cost", ORANGE, "-"), ("target_ratio", "target", INK, "--")),
    ),
    ("Strength λ", (("strength", "strength λ", PURPLE, "-"),)),
)


def plot_training(records: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Draws loss, test accuracy, cost and strength against the step, with the phases shaded.

    A panel appears where at least one record has its value. Where `step` starts again at a new
    phase, the phases are laid one after the other.

    Args:
        records: what a `metrics.jsonl` holds, in order: `phase`, `step`, `loss`, and optionally
            `test_accuracy`, `cost_ratio`, `target_ratio` and `strength`.
        path: the file to write; its ending chooses the format (.png, .svg, .pdf).

    Raises:
        MissingExtraError: if matplotlib is not installed.
        ValueError: if there are no records, or one has no phase or step, or nothing to draw.
    """
    require_matplotlib()
    if not records:
        raise InputError("plot_training needs at least one record; got none.")
    for index, record in enumerate(records):
        missing = [key for key in ("phase", "step") if key not in record]
        if missing:
            raise InputError(
                f"plot_training needs 'phase' and 'step' in every record; record {index} has no "
                f"{' and no '.join(map(repr, missing))}, only {sorted(record)}."
            )
    steps, phases = timeline(records)
    panels = [
        (
            title,
            [line for line in lines if any(record.get(line[0]) is not None for record in records)],
        )
        for title, lines in _PANELS
    ]
    panels = [(title, lines) for title, lines in panels if lines]
    if not panels:
        raise InputError("plot_training found no loss, accuracy, cost or strength in any record.")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 0.7 + 1.75 * len(panels)), layout="constrained")
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for ax, (title, lines) in zip(axes, panels, strict=True):
            _draw_lines(ax, title, lines, steps, records)
            _shade_phases(ax, phases)
        _name_phases(axes[0], phases)
        axes[-1].set_xlim(phases[0][1], max(phases[-1][2], phases[0][1] + 1))
        axes[-1].xaxis.set_major_formatter(EngFormatter(sep=""))
        axes[-1].set_xlabel("step")
        figure.savefig(path)


def timeline(
    records: Sequence[Mapping[str, Any]],
) -> tuple[list[float], list[tuple[str, float, float]]]:
    """Returns each record's step on one axis, and each phase with its first and last step."""
    steps: list[float] = []
    phases: list[tuple[str, float, float]] = []
    end = offset = 0.0
    for name, group in itertools.groupby(records, key=lambda record: record["phase"]):
        own = [float(record["step"]) for record in group]
        if own[0] + offset < end:  # this phase counts from its own beginning
            offset = end
        steps += [step + offset for step in own]
        start, end = end if phases else own[0] + offset, max(own) + offset
        phases.append((str(name), start, end))
    return steps, phases


def _draw_lines(
    ax: "Axes",
    title: str,
    lines: Sequence[tuple[str, str, str, str]],
    steps: Sequence[float],
    records: Sequence[Mapping[str, Any]],
) -> None:
    """Draws one panel."""
    positive = True
    for key, label, color, style in lines:
        points = [
            (step, float(record[key]))
            for step, record in zip(steps, records, strict=True)
            if record.get(key) is not None
        ]
        positive = positive and all(value > 0 for _, value in points)
        marker = "o" if len(points) < 40 and style == "-" else ""
        ax.plot(*zip(*points, strict=True), style, marker=marker, ms=3, color=color, label=label)
    if lines[0][0] in ("loss", "strength") and positive:
        ax.set_yscale("log")
    elif lines[0][0] in ("test_accuracy", "cost_ratio", "target_ratio"):
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    if len(lines) > 1:
        ax.legend(frameon=False, loc="best")
    ax.set_title(title, fontsize=9.5)
    ax.grid(axis="y", color=LIGHT, linewidth=0.5, alpha=0.6)


def _shade_phases(ax: "Axes", phases: Sequence[tuple[str, float, float]]) -> None:
    """Shades every other phase."""
    for _, start, end in phases[1::2]:
        ax.axvspan(start, end, color=LIGHT, alpha=0.35, linewidth=0)


def _name_phases(ax: "Axes", phases: Sequence[tuple[str, float, float]]) -> None:
    """Writes the phases' names over the top panel; one too short for its name gets none."""
    length = max(1.0, phases[-1][2] - phases[0][1])
    for name, start, end in phases:
        if len(phases) == 1 or _CHARACTERS_ACROSS * (end - start) / length >= len(name):
            ax.annotate(
                plain(name),
                ((start + end) / 2, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(0, 18),
                textcoords="offset points",
                ha="center",
                color=MUTED,
            )


@dataclass(frozen=True, kw_only=True)
class Point:
    """One network, or the mean of several runs, in a plot of accuracy against cost.

    Attributes:
        series: what it is compared under, e.g. `learned`; points of one are joined by a line.
        label: written beside it; "" for nothing.
        cost: a share of the seed's.
        accuracy: a share, or another metric; the mean, if there are several runs.
        spread: their standard deviation; None for a single run.
        runs: how many there are.
        metric: what `accuracy` is, if it is another one.
        lower: the lower it is, the better.
    """

    series: str
    label: str
    cost: float
    accuracy: float
    spread: float | None = None
    runs: int = 1
    metric: str = "accuracy"
    lower: bool = False

    @property
    def is_share(self) -> bool:
        """Whether its metric is told in per cent."""
        return is_share(self.metric)

    def shown(self, value: float) -> str:
        """A value of its metric as text."""
        return f"{value:.2%}" if self.is_share else f"{value:.4g}"


def is_share(metric: str) -> bool:
    """Whether a metric is a share of examples, which is told in per cent."""
    return metric.endswith("accuracy")


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in both cost and accuracy, the cheapest first."""

    def worth(point: Point) -> float:
        return -point.accuracy if point.lower else point.accuracy

    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.cost, -worth(point))):
        if not front or worth(point) > worth(front[-1]):
            front.append(point)
    return front


def plot_tradeoff(
    points: Sequence[Point],
    path: str | Path,
    *,
    cost: str = "cost",
    title: str = "Accuracy against cost",
) -> None:
    """Draws accuracy against cost: a line for every series, and the Pareto front behind them.

    Args:
        points: at least one; spreads are drawn as error bars.
        path: the file to write; its ending chooses the format (.png, .svg, .pdf).
        cost: what is paid for, e.g. `flops`.
        title: printed above.

    Raises:
        MissingExtraError: if matplotlib is not installed.
        ValueError: if there are no points, or one costs nothing.
    """
    require_matplotlib()
    if not points or min(point.cost for point in points) <= 0.0:
        raise InputError("plot_tradeoff needs at least one point, and costs above 0.")
    series = {point.series: [q for q in points if q.series == point.series] for point in points}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.4), layout="constrained")
        ax = figure.subplots()
        front = pareto_front(points)
        ax.step(
            [point.cost for point in front],
            [point.accuracy for point in front],
            where="post",
            color=LIGHT,
            linewidth=5,
            solid_capstyle="round",
            label="Pareto front",
            zorder=1,
        )
        for (name, each), marker, color in zip(
            series.items(), itertools.cycle("osD^"), itertools.cycle(SERIES), strict=False
        ):
            own = sorted(each, key=lambda point: point.cost)
            ax.errorbar(
                [point.cost for point in own],
                [point.accuracy for point in own],
                yerr=[point.spread or 0.0 for point in own],
                marker=marker,
                ms=5,
                color=color,
                linewidth=1.2,
                elinewidth=0.8,
                capsize=2,
                label=entry(name),
                zorder=2,
            )
        ax.set_xlabel(plain(f"{cost}, share of the seed"))
        ax.set_ylabel(plain(f"test {points[0].metric.replace('_', ' ')}"))
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        if points[0].is_share:
            ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        ax.grid(color=LIGHT, linewidth=0.5, alpha=0.6)
        ax.set_title(plain(title))
        ax.legend(frameon=False, loc="lower right")
        figure.savefig(path)


def require_matplotlib() -> None:
    """Raises `MissingExtraError`, which says what to install, if matplotlib is missing."""
    need("a plot", _missing, "plots")
