"""A sweep over a working directory: its networks on disk, what is missing, what came out."""

from __future__ import annotations

import os
import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.table import Table

from experiments.pictures.plots import Point
from morph import files
from morph.architecture.architecture import Architecture
from morph.cycle.members import Member, Trained
from morph.cycle.progress import Outcome
from morph.cycle.stamp import check_pair, stamped
from morph.cycle.sweep import Sweep
from morph.cycle.workdir import load_variables, save_variables
from morph.facts import lines_of
from morph.network import Variables

KINDS = {"learned": "learned, from scratch", "shrunk": "shrunk, warm", "uniform": "uniform width"}


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """The networks of a sweep on disk: one architecture file and one set of variables each.

    The file is written last, so that it is there only if all is.
    """

    workdir: Path
    report: Mapping[str, Any]  # that every architecture file gets

    def file(self, kind: str, seed: int, budget: float | None = None) -> Path:
        """Where the architecture of a network is, or will be."""
        place = self.workdir / f"seed-{seed}"
        if budget is not None:
            short = f"{budget:g}"
            place /= f"budget-{short if float(short) == budget else repr(budget)}"
        return place / f"{kind}.json"

    def outcome(self, file: Path) -> Outcome | None:
        """What came out, if the network is there."""
        if not file.exists():
            return None
        return Outcome.of(Architecture.load(file).report["outcomes"][-1])

    def put(self, file: Path, trained: Trained, outcomes: Sequence[Outcome], **more: Any) -> None:
        """Keeps a network; where several processes make the same one, the first keeps it."""
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f"{file.stem}.{os.getpid()}.part")
        save_variables(draft, trained.variables)
        if file.exists():  # another process was faster
            shutil.rmtree(draft)
            return
        files.replace(draft, file.with_suffix(""))
        files.write_text(file.with_suffix(".jsonl"), lines_of(trained.records))
        report = {
            **self.report,
            **more,
            "cost": outcomes[-1].cost,
            "outcomes": [asdict(outcome) for outcome in outcomes],
        }
        stamped(replace(trained.architecture, report=report), trained.variables).save(file)

    def variables(self, file: Path, like: Any) -> Variables:
        """The variables of a network that is there.

        Raises:
            WorkdirError: if they are not those that its file was written with.
        """
        variables = load_variables(file.with_suffix(""), like)
        check_pair(file, Architecture.load(file), variables)
        return variables


@dataclass(frozen=True, kw_only=True)
class Study:
    """A sweep over a working directory; what is there is not trained again.

    All strengths are in units of the seed network of random seed `config.seed`.
    """

    sweep: Sweep
    shelf: Shelf
    together: bool

    def run(self, budgets: Sequence[float], seeds: Sequence[int]) -> None:
        """Trains what is missing."""
        members = [Member(budget=b, seed=s) for b in budgets for s in seeds]
        self._seeds(list(dict.fromkeys([self.sweep.config.seed, *seeds])))
        self._shrink(members)
        self._retrain(members)

    def has(self, budget: float, seeds: Sequence[int]) -> bool:
        """Whether all networks of a budget are there."""
        files = (self.shelf.file(kind, seed, budget) for kind in KINDS for seed in seeds)
        return all(file.exists() for file in files)

    def _seeds(self, seeds: Sequence[int]) -> None:
        missing = [s for s in seeds if not self.shelf.file("seed", s).exists()]
        for part in self._parts(missing):
            for seed, trained in zip(part, self.sweep.train_seeds(part), strict=True):
                outcome = self.sweep.outcome("seed", trained, self.sweep.config.seed_steps)
                self.shelf.put(self.shelf.file("seed", seed), trained, [outcome])

    def _shrink(self, members: Sequence[Member]) -> None:
        config = self.sweep.config
        missing = [m for m in members if not self._file("shrunk", m).exists()]
        if not missing:
            return
        pulling = self.sweep.pulling(self._seed_variables(config.seed))
        for part in self._parts(missing):
            seeds = {m.seed: self._seed_variables(m.seed) for m in part}
            for member, trained in zip(part, self.sweep.shrink(part, seeds, pulling), strict=True):
                steps = config.seed_steps + config.shrink_steps
                self._put("shrunk", member, trained, steps)

    def _retrain(self, members: Sequence[Member]) -> None:
        missing = [
            (kind, m)
            for kind in ("learned", "uniform")
            for m in members
            if not self._file(kind, m).exists()
        ]
        for part in self._parts(missing):
            architectures = [self._architecture(kind, m) for kind, m in part]
            found = self.sweep.retrain(
                architectures, [m.seed for _, m in part], masked=self.together
            )
            for (kind, member), trained in zip(part, found, strict=True):
                self._put(kind, member, trained, self.sweep.config.retrain_steps)

    def _architecture(self, kind: str, member: Member) -> Architecture:
        if kind == "uniform":
            return self.sweep.uniform(member.budget)
        return Architecture.load(self._file("shrunk", member))

    def _put(self, kind: str, member: Member, trained: Trained, steps: int) -> None:
        seed = self.shelf.outcome(self.shelf.file("seed", member.seed))
        assert seed is not None  # it comes first
        config = asdict(replace(self.sweep.config, seed=member.seed, budget=member.budget))
        self.shelf.put(
            self._file(kind, member),
            trained,
            [seed, self.sweep.outcome(kind, trained, steps)],
            config=config,
            budget=member.budget * self.sweep.cost(),
        )

    def _file(self, kind: str, member: Member) -> Path:
        return self.shelf.file(kind, member.seed, member.budget)

    def _parts(self, items: Sequence[Any]) -> Iterator[Sequence[Any]]:
        """What is trained in one go: everything, or one by one."""
        if items and self.together:
            yield items
        elif items:
            yield from ([item] for item in items)

    def _seed_variables(self, seed: int) -> Variables:
        return self.shelf.variables(self.shelf.file("seed", seed), self.sweep.traces.variables)


def collected(shelf: Shelf, budgets: Sequence[float], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Every network that is there: its kind, budget and seed, and its outcome."""
    rows = []
    for seed in seeds:
        found = shelf.outcome(shelf.file("seed", seed))
        if found is not None:
            rows.append({"kind": "seed", "budget": 1.0, "seed": seed, **asdict(found)})
        for kind in KINDS:
            for budget in budgets:
                found = shelf.outcome(shelf.file(kind, seed, budget))
                if found is not None:
                    rows.append({"kind": kind, "budget": budget, "seed": seed, **asdict(found)})
    return rows


def points_of(
    rows: Sequence[Mapping[str, Any]], seed_cost: float, *, lower: bool = False
) -> list[Point]:
    """For every kind and budget the mean over the seeds, and their spread.

    Args:
        rows: of `collected`.
        seed_cost: in the unit of the target.
        lower: the lower the first metric, the better.
    """
    points = []
    for kind, label in {"seed": "seed", **KINDS}.items():
        own = [row for row in rows if row["kind"] == kind]
        for budget in dict.fromkeys(row["budget"] for row in own):
            runs = [row for row in own if row["budget"] == budget]
            accuracies = [_value(row) for row in runs]
            points.append(
                Point(
                    series=label,
                    label=f"{budget:.0%}" if kind != "seed" else "",
                    cost=statistics.mean(row["cost"] for row in runs) / seed_cost,
                    accuracy=statistics.mean(accuracies),
                    spread=statistics.stdev(accuracies) if len(runs) > 1 else None,
                    runs=len(runs),
                    metric=next(iter(runs[0]["metrics"]), "accuracy"),
                    lower=lower,
                )
            )
    return points


def _value(row: Mapping[str, Any]) -> float:
    """The first metric; where an older sweep left it, the accuracy."""
    return float(next(iter(row["metrics"].values()), row["accuracy"]))


def table_of(
    points: Sequence[Point], cost: str, failed: Mapping[float, str] = MappingProxyType({})
) -> Table:
    """Accuracy at every budget, learned beside uniform; and why a budget failed."""
    table = Table(title=f"Accuracy against {cost}", title_justify="left")
    metric = points[0].metric.replace("_", " ") if points else "accuracy"
    for column in ("network", "budget", f"{cost}, of seed", metric, "spread", "runs"):
        table.add_column(column, justify="left" if column == "network" else "right")
    for point in points:
        spread = "–" if point.spread is None else point.shown(point.spread)
        table.add_row(
            point.series,
            point.label,
            f"{point.cost:.1%}",
            point.shown(point.accuracy),
            spread,
            str(point.runs),
        )
    for budget, why in failed.items():
        table.add_row(f"failed: {why}", f"{budget:.0%}", "–", "–", "–", "0")
    return table
