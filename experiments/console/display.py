"""What a run shows while it trains, and the tables it ends with.

On a terminal a `Display` is a live panel; elsewhere it is a plain line every few seconds. Whatever
happens to the terminal or the log, the run goes on.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.bar import Bar
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from experiments.console.lasting import lasting
from experiments.console.terminal import Clean, terminal
from experiments.console.waiting import Waiting
from regularizers.errors import InputError

_PREFIXES = {-9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P"}
_LEVELS = "▁▂▃▄▅▆▇█"
_REMOVED = "·"
_SHARE = "% of seed"


def humanize(number: float, unit: str = "") -> str:
    """Returns a number with three significant digits, an SI prefix and its unit.

    Example:
        >>> humanize(2.43e6, "FLOP"), humanize(78_042), humanize(12)
        ('2.43 MFLOP', '78.0 k', '12')
    """
    if not math.isfinite(number):
        return f"{number} {unit}".rstrip()
    if number == 0 or (number == int(number) and abs(number) < 1000):
        return f"{int(number)} {unit}".rstrip()
    rounded = float(f"{number:.3g}")  # first, so that 999,999 becomes 1.00 M and not 1000 k
    exponent = 3 * math.floor(math.log10(abs(rounded)) / 3)
    exponent = min(max(exponent, min(_PREFIXES)), max(_PREFIXES))
    value = rounded / 10.0**exponent
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f} {_PREFIXES[exponent]}{unit}".rstrip()


def duration(seconds: float) -> str:
    """Returns a length of time as minutes and seconds, with hours where there are any.

    Example:
        >>> duration(83), duration(3683)
        ('1:23', '1:01:23')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.1f} %"


def _share(value: Any) -> str:
    return _percent(float(value))


# How each known metric is written; any other number is written with four digits.
_FORMATS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "loss": ("loss", lambda value: f"{float(value):.4g}"),
    "accuracy": ("accuracy", _share),
    "test_accuracy": ("test accuracy", _share),
    "cost_ratio": ("cost", lambda value: f"{_share(value)} of seed"),
    "target_ratio": ("target", _share),
    "budget_ratio": ("budget", _share),
    "strength": ("λ", lambda value: f"{float(value):.2e}"),
}


def _described(metrics: Mapping[str, Any]) -> list[str]:
    """Returns `name value` for each metric: the known in the table's order, then the others."""
    known = [
        f"{name} {show(metrics[key])}"
        for key, (name, show) in _FORMATS.items()
        if key in metrics and (key != "strength" or float(metrics[key]))  # decay has no strength
    ]
    return known + [f"{k} {float(v):.4g}" for k, v in metrics.items() if k not in _FORMATS]


def _described_widths(widths: Mapping[str, int], seed_widths: Mapping[str, int]) -> str:
    """Returns alive and seed channels in all, then one bar character per group."""
    seeds = {group: int(seed_widths.get(group, width)) for group, width in widths.items()}
    marks = ""
    for group, width in widths.items():
        level = math.ceil(len(_LEVELS) * int(width) / max(1, seeds[group]))
        marks += _LEVELS[min(level, len(_LEVELS)) - 1] if level > 0 else _REMOVED
    alive = sum(int(width) for width in widths.values())
    return f"widths {alive:,}/{sum(seeds.values()):,} channels {marks}"


@dataclasses.dataclass(kw_only=True)
class _Progress:
    """Where one phase stands."""

    name: str
    total_steps: int
    step: int = 0
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)
    widths: Mapping[str, int] = dataclasses.field(default_factory=dict)
    # The rate counts from the first update on: this leaves out compilation, and the steps that a
    # resumed run did in its earlier life.
    first: tuple[int, float] | None = None
    last_s: float = 0.0
    drawn_s: float = -math.inf
    drawn_step: int = -1

    def update(self, step: int, now_s: float, metrics: Mapping[str, Any]) -> None:
        """Takes the newest step and metrics."""
        self.step, self.last_s = step, now_s
        self.metrics |= {name: value for name, value in metrics.items() if value is not None}
        self.widths = self.metrics.pop("widths", self.widths)
        if self.first is None:
            self.first = (step, now_s)

    def timing(self) -> list[str]:
        """Returns the rate and the time left, once two updates tell them."""
        if self.first is None or self.step <= self.first[0] or self.last_s <= self.first[1]:
            return []
        rate = (self.step - self.first[0]) / (self.last_s - self.first[1])
        left_s = max(0, self.total_steps - self.step) / rate
        speed = f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
        return [f"{speed} steps/s", f"{duration(left_s)} left"]


@dataclasses.dataclass(kw_only=True)
class Display:
    """Shows the progress of a run; use it as a context manager.

    Attributes:
        console: where to print; the default is standard output.
        budget_ratio: the budget as a share of the seed's cost, where there is one.
        seed_widths: channels per group of the seed network.
        live_interval_s: seconds between two drawings on a terminal.
        line_interval_s: seconds between two lines elsewhere; a phase has one at its end.
        live_refresh_per_s: drawings a second of what is shown while nothing is told.
        clock: returns the time in seconds.

    Example:
        >>> with Display(budget_ratio=0.5) as display:  # doctest: +SKIP
        ...     display.phase("shrink", total_steps=2000)
        ...     display.update(1, loss=2.30, cost_ratio=1.0, strength=1e-3)
    """

    console: Console = dataclasses.field(default_factory=terminal)
    budget_ratio: float | None = None
    seed_widths: Mapping[str, int] = dataclasses.field(default_factory=dict)
    live_interval_s: float = 0.1
    line_interval_s: float = 60.0
    live_refresh_per_s: float = 2.0
    clock: Callable[[], float] = time.monotonic
    _live: Live | None = dataclasses.field(default=None, init=False)
    _progress: _Progress | None = dataclasses.field(default=None, init=False)

    def __enter__(self) -> Self:
        """Starts the display."""
        self.console.file = lasting(self.console.file)
        if self.console.is_terminal:
            # Its thread draws the time that compiling takes, in which nothing else happens.
            self._live = Live(console=self.console, refresh_per_second=self.live_refresh_per_s)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Draws the last state, which stays, and gives the terminal back."""
        live, progress = self._live, self._progress
        self._live = self._progress = None
        try:
            if progress is not None and live is not None:
                live.update(self._panel(progress))
            elif progress is not None:
                self._print_last_line(progress)
        finally:
            if live is not None:
                live.stop()

    def seed(self, widths: Mapping[str, int]) -> None:
        """Tells the widths that all later ones are compared with."""
        self.seed_widths = dict(widths)

    def phase(self, name: str, total_steps: int) -> None:
        """Starts a phase of `total_steps` steps; of the one before a line stays."""
        previous, now_s = self._progress, self.clock()
        self._progress = _Progress(name=name, total_steps=total_steps, drawn_s=now_s)
        if self._live is not None:
            self._progress.drawn_s = -math.inf
            what = "compiling" if total_steps else "working"
            line = Waiting(name=name, what=what, since_s=now_s, clock=self.clock)
            self._live.update(line, refresh=True)
        if previous is not None:
            self._print_last_line(previous)  # above the live panel

    def update(self, step: int, **metrics: Any) -> None:
        """Tells that `step` steps of this phase are done.

        Cheap enough for every step: values are read only when something is drawn, so a metric may
        be an array that is still being computed.

        Args:
            step: steps of this phase done so far.
            **metrics: newest values; those left out or None keep their last. `loss`; `accuracy` and
                `test_accuracy` (shares); `cost_ratio` and `target_ratio` (shares of the seed's
                cost); `strength` (λ); `widths` (alive channels per group, a mapping). Any other
                number is shown under its own name.

        Raises:
            RuntimeError: if no phase was started.
        """
        if self._progress is None:
            raise RuntimeError(
                f"Display.update(step={step}) before any phase: "
                "call phase(name, total_steps) first."
            )
        progress, now_s = self._progress, self.clock()
        progress.update(step, now_s, metrics)
        interval_s = self.line_interval_s if self._live is None else self.live_interval_s
        if now_s - progress.drawn_s >= interval_s:
            progress.drawn_s, progress.drawn_step = now_s, step
            if self._live is None:
                self._print_line(progress)
            else:
                self._live.update(self._panel(progress), refresh=True)

    def print(self, *items: RenderableType) -> None:
        """Prints above the live panel."""
        self.console.print(*items)

    def _metrics(self, progress: _Progress) -> list[str]:
        """Returns the metrics as text, with the budget beside the cost."""
        budget = {} if self.budget_ratio is None else {"budget_ratio": self.budget_ratio}
        return _described(budget | progress.metrics)

    def _panel(self, progress: _Progress) -> RenderableType:
        """Returns what a terminal shows: a bar, the metrics, the widths."""
        bar = Table.grid(padding=(0, 2), expand=False)
        bar.add_row(
            Text(progress.name, style="bold cyan"),
            ProgressBar(total=max(1, progress.total_steps), completed=progress.step, width=32),
            f"{progress.step:,}/{progress.total_steps:,}",
            *progress.timing(),
        )
        lines: list[RenderableType] = [bar]
        if metrics := self._metrics(progress):
            lines.append(Text("  ".join(metrics)))
        if widths := self._widths(progress):
            lines.append(Text(widths, no_wrap=True, overflow="ellipsis"))
        return Clean(renderable=Group(*lines))  # the live panel passes by the console's own

    def _widths(self, progress: _Progress) -> str:
        return _described_widths(progress.widths, self.seed_widths) if progress.widths else ""

    def _print_last_line(self, progress: _Progress) -> None:
        """Prints the state in which a phase ended, if no line showed it yet."""
        if progress.first is not None and progress.drawn_step != progress.step:
            self._print_line(progress)

    def _print_line(self, progress: _Progress) -> None:
        """Prints what a log shows: everything on one line."""
        share = f"{100 * progress.step / max(1, progress.total_steps):.0f} %"
        parts = [
            f"{progress.name} {progress.step}/{progress.total_steps} ({share})",
            *progress.timing(),
            *self._metrics(progress),
            self._widths(progress),
        ]
        self.console.print(Text(" | ".join(part for part in parts if part)), soft_wrap=True)


def figure_table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table without lines, whose first column names the rows; the others stand to the right.

    Where it is too narrow names are folded; figures stay whole.
    """
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    shown.add_column(head[0], overflow="fold")
    for name in head[1:]:
        folded = "% of\nseed" if name == _SHARE else name.replace(" ", "\n")
        shown.add_column(folded, justify="right", no_wrap=True)
    for row in rows:
        shown.add_row(*map(Text, row))
    return shown


def width_table(rows: Sequence[tuple[str, int, int, int]], title: str = "Widths") -> Table:
    """Returns a table of what every group became.

    Args:
        rows: per group its name, seed width, shrunk width and final width, in network order.
        title: printed above the table.

    Returns:
        A table to print with `Console.print` or `Display.print`; its bars share one scale and
        are orange where a group ends wider than it began.
    """
    table = Table(title=title, title_justify="left")
    table.add_column("group", overflow="fold")
    for column in ("seed", "shrunk", "final"):
        table.add_column(column, justify="right")
    table.add_column("")
    widest = max((final for *_, final in rows), default=1)
    for name, seed, shrunk, final in rows:
        color = "dark_orange" if final > seed else "dodger_blue2"
        bar = Bar(size=max(1, widest), begin=0, end=final, width=20, color=color)
        table.add_row(
            Text(name), str(seed), str(shrunk), str(final), bar if final else Text("removed", "red")
        )
    return table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """One row of the before/after table.

    Attributes:
        name: "seed", "shrunk", "expanded & retrained", ...
        flops: FLOPs of one example, 2 per multiply-add.
        parameters: number of parameters.
        accuracy: test accuracy as a share; None where it was not measured.
        metrics: all that was measured, by name; shown is the first, where there is no accuracy.
        cost: what was paid for, if that is neither of these; None where it was not asked for.
        steps: of training that its weights have seen; None where nobody counted.
    """

    name: str
    flops: float
    parameters: float
    accuracy: float | None = None
    cost: float | None = None
    steps: int | None = None
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    seconds: float | None = None

    @property
    def quality(self) -> tuple[str, str]:
        """What tells how good it is, and how much that is."""
        if self.accuracy is not None or not self.metrics:
            return "accuracy", "–" if self.accuracy is None else _percent(self.accuracy)
        name = next(iter(self.metrics))
        return name.replace("_", " "), f"{self.metrics[name]:.4g}"


def result_of(outcome: Mapping[str, Any], measured: Mapping[str, Any] | None = None) -> Result:
    """A row of an outcome, as `results.json` has it, and of what was measured here, if it was."""
    names = ("name", "flops", "parameters", "accuracy", "cost", "steps")
    return Result(
        **{name: outcome[name] for name in names},
        metrics=outcome.get("metrics") or {},
        seconds=measured["seconds"] if measured else None,
    )


def result_table(
    results: Sequence[Result], title: str = "Before and after", *, cost: str = "", unit: str = ""
) -> Table:
    """Returns a table that compares networks with the first, the seed.

    It takes 80 columns as long as names are short; where there are more, they are folded.

    Args:
        results: the seed's result, then any others.
        title: printed above the table.
        cost: what `Result.cost` is; it gets a column of its own, and is named in the title.
        unit: of the cost; "" for a ratio.

    Returns:
        A table of accuracy, FLOPs and parameters, each with its ratio to the seed; the cost, too,
        if it has a name, and the time of one example on this machine where it was measured.

    Raises:
        ValueError: if there are no results.
    """
    if not results:
        raise InputError("result_table needs at least the seed's Result; got none.")
    seed, timed = results[0], any(result.seconds is not None for result in results)
    head = ["network", "steps", seed.quality[0]]
    head += ["cost", _SHARE] if cost else []
    head += ["FLOPs", _SHARE, "parameters", _SHARE]
    head += ["time here", _SHARE] if timed else []
    rows = []
    for one in results:
        row = [one.name, "–" if one.steps is None else f"{one.steps:,}", one.quality[1]]
        if cost:
            row += [_amount(one.cost, unit), _ratio(one.cost, seed.cost)]
        row += [humanize(one.flops), _ratio(one.flops, seed.flops)]
        row += [humanize(one.parameters), _ratio(one.parameters, seed.parameters)]
        if timed:
            row += [_amount(one.seconds, "s"), _ratio(one.seconds, seed.seconds)]
        rows.append(row)
    return figure_table(f"{title}; cost: {cost}" if cost else title, head, rows)


def _amount(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    return humanize(value, unit) if unit else f"{value:.3f}"


def _ratio(value: float | None, seed: float | None) -> str:
    return f"{100 * value / seed:.1f}" if value is not None and seed else "–"
