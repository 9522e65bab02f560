"""Runs side by side: what was asked, what came out, and every width: `morph compare`."""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from experiments.commands.compare import COMMAND, PAGES, PICTURES
from experiments.console.command import command_of, ending
from experiments.console.display import humanize
from experiments.console.terminal import terminal
from experiments.pictures import plots
from experiments.pictures.plots import Point
from experiments.report.charts import tradeoff_chart
from experiments.report.page import page_of
from experiments.report.runs import Run, RunError, read_run
from experiments.report.tables import spelled, table

MISSING = "–"
APART = (
    "These runs differ in their seed network, data or target: shares of a cost are of each run's "
    "own seed, and there is no common front."
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Runs of one configuration, which differ in their random seeds."""

    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        """The first run's name, and how many there are."""
        first = self.runs[0].name
        return first if len(self.runs) == 1 else f"{first} and {len(self.runs) - 1} more"

    @property
    def config(self) -> Mapping[str, Any]:
        """What was asked for, without the random seed."""
        return _without_seed(self.runs[0].config)

    @property
    def seeds(self) -> str:
        """The random seeds."""
        found = [str(run.config["seed"]) for run in self.runs if "seed" in run.config]
        return ", ".join(found) or MISSING

    @property
    def state(self) -> str:
        """`finished`, or how far the runs came."""
        for run in self.runs:
            if not run.finished:
                last = run.records[-1] if run.records else None
                where = f" in {last['phase']!r} at step {last['step']}" if last else " to train"
                return f"not finished{where}"
        return "finished"

    def finals(self, key: str) -> list[float]:
        """A number of the network that every run ended with, where it has one."""
        ended = [run.final for run in self.runs if run.final is not None and not run.points]
        return [float(final[key]) for final in ended if final[key] is not None]

    def share(self) -> list[float]:
        """The cost of every run's network, over its seed's."""
        shares = []
        for run in self.runs:
            seed = next((o for o in run.outcomes if o["name"] == "seed"), None)
            if run.final is not None and seed is not None and not run.points:
                shares.append(run.final["cost"] / seed["cost"])
        return shares

    def points(self) -> list[Point]:
        """In a plot of accuracy against cost."""
        swept = [
            Point(**{**vars(point), "series": f"{run.name}: {point.series}"})
            for run in self.runs
            for point in run.points
        ]
        shares, accuracies = self.share(), self.finals("accuracy")
        if not shares or len(shares) != len(accuracies):
            return swept
        own = Point(
            series=self.name,
            label="",
            cost=statistics.mean(shares),
            accuracy=statistics.mean(accuracies),
            spread=statistics.stdev(accuracies) if len(accuracies) > 1 else None,
            runs=len(accuracies),
        )
        return [*swept, own]

    def widths(self) -> dict[str, float]:
        """The width of every group of the network that the runs ended with; means."""
        found: dict[str, list[int]] = {}
        for run in self.runs:
            final = {} if run.final is None or run.points else run.final["widths"]
            for group, width in final.items():
                found.setdefault(group, []).append(width)
        return {group: statistics.mean(widths) for group, widths in found.items()}

    def seed_widths(self) -> dict[str, int]:
        """The seed network's."""
        for outcome in self.runs[0].outcomes:
            if outcome["name"] == "seed":
                return dict(outcome["widths"])
        return {}


def entries_of(runs: Sequence[Run]) -> list[Entry]:
    """Runs by configuration, in the order given."""
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        key = json.dumps(_without_seed(run.config), sort_keys=True)
        # Without a seed there is nothing that two runs of one configuration could differ in.
        own = key if run.config.get("seed") is not None else f"{key} {run.workdir}"
        grouped.setdefault(own, []).append(run)
    return [Entry(runs=tuple(own)) for own in grouped.values()]


def _without_seed(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "seed"}


# ---- The tables: a heading, the column heads, and rows of text


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table, for the terminal and for the page."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def for_terminal(self) -> Table:
        """As rich shows it."""
        shown = Table(title=self.title, title_justify="left")
        for k, name in enumerate(self.head):
            shown.add_column(name, justify="right" if k else "left", overflow="fold")
        for row in self.rows:
            shown.add_row(*map(Text, row))
        return shown


def sheets_of(entries: Sequence[Entry]) -> list[Sheet]:
    """What differs, what came out, and the widths."""
    names = tuple(entry.name for entry in entries)
    sheets = []
    if differing := differences(entries):
        sheets.append(Sheet(title="What differs", head=("setting", *names), rows=tuple(differing)))
    told = [_outcome(entry) for entry in entries]
    rows = tuple((fact, *(one[fact] for one in told)) for fact in told[0])
    sheets.append(Sheet(title="Outcomes", head=("outcome", *names), rows=rows))
    widths = [entry.widths() for entry in entries]
    seeds: dict[str, int] = {}
    for entry in entries:
        seeds = {**entry.seed_widths(), **seeds}
    groups = list(dict.fromkeys([*seeds, *(group for own in widths for group in own)]))
    if groups:
        rows = tuple(
            (
                group,
                f"{seeds[group]}" if group in seeds else MISSING,
                *(f"{own[group]:.4g}" if group in own else MISSING for own in widths),
            )
            for group in groups
        )
        sheets.append(Sheet(title="Widths", head=("group", "seed", *names), rows=rows))
    return sheets


def differences(entries: Sequence[Entry]) -> list[tuple[str, ...]]:
    """The settings that are not the same everywhere, with the value of each entry."""
    settings = sorted({name for entry in entries for name in entry.config})
    rows = []
    for name in settings:
        values = [entry.config.get(name, MISSING) for entry in entries]
        if any(value != values[0] for value in values):
            rows.append((name, *map(_in_short, values)))
    return rows


def _in_short(value: Any) -> str:
    """A setting; of a checksum what tells it from others."""
    text = str(value)
    return f"{text[:12]}…" if re.fullmatch(r"[0-9a-f]{16,}", text) else text


def _outcome(entry: Entry) -> dict[str, str]:
    """What came out of an entry's runs, by what it is called."""
    target, unit = entry.runs[0].target
    seed = [
        o["accuracy"]
        for run in entry.runs
        for o in run.outcomes
        if o["name"] == "seed" and o["accuracy"] is not None
    ]
    seconds = [run.results["seconds"] for run in entry.runs if "seconds" in run.results]
    return {
        "state": f"sweep, {entry.state}" if entry.runs[0].points else entry.state,
        "random seeds": entry.seeds,
        "accuracy": _spread(entry.finals("accuracy"), _percent),
        "accuracy of the seed": _spread(seed, _percent),
        "target": target,
        "cost": _spread(entry.finals("cost"), lambda value: humanize(value, unit)),
        "cost, of the seed's": _spread(entry.share(), _percent),
        "FLOPs": _spread(entry.finals("flops"), lambda value: humanize(value, "FLOP")),
        "parameters": _spread(entry.finals("parameters"), humanize),
        "time": _spread(seconds, spelled),
    }


def comparable(entries: Sequence[Entry]) -> bool:
    """Whether all runs learn from one seed network on the same data, for one cost."""
    facts = {
        (
            run.title,
            run.target[0],
            run.results.get("data_fingerprint"),
            run.results.get("seed_cost"),
        )
        for entry in entries
        for run in entry.runs
        if run.finished
    }
    return len(facts) <= 1


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _spread(values: Sequence[float], shown: Callable[[float], str]) -> str:
    """The mean, and the standard deviation where there are several."""
    if not values:
        return MISSING
    mean = shown(statistics.mean(values))
    return mean if len(values) == 1 else f"{mean} ± {shown(statistics.stdev(values))}"


# ---- What is written


def write_page(entries: Sequence[Entry], path: Path) -> None:
    """The comparison as a page that opens offline."""
    points = [point for entry in entries for point in entry.points()]
    sections = [(sheet.title, table("", sheet.head, sheet.rows)) for sheet in sheets_of(entries)]
    if points:
        front = comparable(entries)
        alt = f"Accuracy against cost of {len(points)} networks" + ", and their front" * front
        note = "" if front else f"<p>{APART}</p>"
        chart = note + tradeoff_chart(points, alt, front=front)
        sections.insert(0, ("Accuracy against cost", chart))
    count = sum(len(entry.runs) for entry in entries)
    kinds = f"{len(entries)} configuration{'s' * (len(entries) > 1)}"
    lead = f'<p class="lead">{count} run{"s" * (count > 1)} of {kinds}.</p>'
    path.write_text(page_of("Runs side by side", lead, sections), encoding="utf-8")


def write_picture(entries: Sequence[Entry], path: Path) -> None:
    """The comparison as a plot of accuracy against cost.

    Raises:
        RunError: if no run has come so far as to be in it.
    """
    points = [point for entry in entries for point in entry.points()]
    if not points:
        raise RunError(f"nothing to draw in {path}: no run has a network beside its seed yet")
    plots.plot_tradeoff(points, path, title="Runs side by side")


_WRITERS: dict[str, Callable[[Sequence[Entry], Path], None]] = {
    **dict.fromkeys(PAGES, write_page),
    **dict.fromkeys(PICTURES, write_picture),
}


def main(argv: Sequence[str]) -> None:
    """The entry point of `python -m experiments.compare`; `argv[0]` is the program's name."""
    with ending(command_of("compare", argv)):
        options, workdirs = COMMAND.read(argv)
        if told := COMMAND.told(options):
            print(told)
            return
        outputs = [Path(output) for output in options.output]
        entries = entries_of([read_run(workdir) for workdir in dict.fromkeys(workdirs)])
        for path in outputs:
            _WRITERS[path.suffix](entries, path)
        console = terminal()
        for sheet in sheets_of(entries):
            console.print(sheet.for_terminal())
        for path in outputs:
            console.print(str(path), soft_wrap=True)


if __name__ == "__main__":
    main(sys.argv)
