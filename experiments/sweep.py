"""Accuracy against cost: one seed network, several budgets, and the uniform width multiplier.

    python -m experiments.sweep --seed_network=mlp --dataset=digits --budgets=1,0.75,0.5,0.25,0.1

trains the seed network once for every random seed in --seeds; shrinks it to every budget; trains
the learned widths from scratch; and trains the seed with one uniform width multiplier at the same
cost. All three have seen equally many steps, unless --retrain_steps says otherwise. --workdir then
holds results.json, tradeoff.png, report.html, and below seed-S/budget-B the architecture and the
variables of each network (`python -m experiments.retrain` and `experiments.report` take them).

    --how=vmap        all budgets and seeds side by side in one compiled program (the default);
                      retraining, too: as the seed network with channels held at zero
    --how=turn        one after the other; retraining at the learned widths
    --how=processes   one process for every budget, --jobs at a time

What is in the working directory is not trained again: stop it, and the same command goes on; add
budgets or seeds, and only those are trained. Several hosts may share a working directory:

    host 1: python -m experiments.sweep ... --workdir=/shared/sweep --only=0.5
    host 2: python -m experiments.sweep ... --workdir=/shared/sweep --only=0.25
    later:  python -m experiments.sweep ... --workdir=/shared/sweep      # collects, and draws
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import jax
from absl import flags
from rich.console import Console
from rich.table import Table

from experiments import datasets
from experiments.console.command import USER_ERRORS, launch
from experiments.console.display import Display, humanize
from experiments.console.flags import config_of, define_settings
from experiments.models import network_of
from experiments.networks import SEED_NETWORKS
from experiments.pictures import plots
from experiments.pictures.plots import Point
from experiments.report import write_report
from morph.architecture.architecture import Architecture
from morph.cycle.config import CycleConfig
from morph.cycle.members import Member, Trained
from morph.cycle.progress import Outcome
from morph.cycle.sweep import Sweep
from morph.cycle.unused import UNUSED_BY_SWEEP
from morph.cycle.workdir import claim_workdir, load_variables, save_variables
from morph.errors import ConfigError
from morph.files import write_text
from morph.network import Variables
from morph.training.data import Batch

HOWS = ("vmap", "turn", "processes")
KINDS = {"learned": "learned, from scratch", "shrunk": "shrunk, warm", "uniform": "uniform width"}
# What a working directory is for; budgets and seeds may be added to it.
# Of all settings the random seed says whose strengths are the unit.
IDENTITY = (
    "seed_network", "width", "dataset",
    *(setting.name for setting in fields(CycleConfig) if setting.name not in UNUSED_BY_SWEEP),
)  # fmt: skip
_DEFAULTS = {"penalty": "group_lasso", "blocks": False}


def define_flags() -> flags.FlagValues:
    """The flags of this command, which shares names, and no values, with experiments.run."""
    own = flags.FlagValues()
    flags.DEFINE_enum(
        "seed_network", "mlp", list(SEED_NETWORKS), "The network to begin with.", flag_values=own
    )
    flags.DEFINE_float("width", 1.0, "Multiplies the seed's widths.", 0.01, flag_values=own)
    flags.DEFINE_enum(
        "dataset", "digits", list(datasets.DATASETS), "What to train on.", flag_values=own
    )
    flags.DEFINE_string("data_dir", None, "Where data sets are looked for first.", flag_values=own)
    flags.DEFINE_string("workdir", None, "Where everything goes.", flag_values=own)
    flags.DEFINE_list(
        "budgets", ["1", "0.75", "0.5", "0.25", "0.1"], "Ratios to the seed's.", flag_values=own
    )
    flags.DEFINE_list("seeds", ["0"], "Random seeds: mean and spread.", flag_values=own)
    flags.DEFINE_list("only", None, "Of the budgets only these, for now.", flag_values=own)
    flags.DEFINE_enum("how", "vmap", HOWS, "Side by side, or one by one.", flag_values=own)
    flags.DEFINE_integer("jobs", 2, "Processes at a time.", 1, flag_values=own)
    define_settings(own)
    own.set_default("retrain_steps", None)  # seed_steps + shrink_steps
    for name, value in _DEFAULTS.items():
        own.set_default(name, value)
    flags.DEFINE_bool("help", False, "Show this help.", short_name="?", flag_values=own)
    return own


def numbers(flag: str, texts: Sequence[str], kind: type[float] | type[int]) -> list[Any]:
    """A list of numbers as typed, each once.

    Raises:
        ConfigError: naming the flag and what is no number.
    """
    found = []
    for text in texts:
        try:
            found.append(kind(text))
        except ValueError:
            raise ConfigError(f"--{flag}: {text!r} is no {kind.__name__}") from None
    if not found:
        raise ConfigError(f"--{flag} is empty; give at least one number")
    return list(dict.fromkeys(found))


# ---- What is kept


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
        return (place if budget is None else place / f"budget-{budget:g}") / f"{kind}.json"

    def outcome(self, file: Path) -> Outcome | None:
        """What came out, if the network is there."""
        if not file.exists():
            return None
        return Outcome(**Architecture.load(file).report["outcomes"][-1])

    def put(self, file: Path, trained: Trained, outcomes: Sequence[Outcome], **more: Any) -> None:
        """Keeps a network; where several processes make the same one, the first keeps it."""
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f"{file.stem}.{os.getpid()}.part")
        save_variables(draft, trained.variables)
        try:
            draft.replace(file.with_suffix(""))
        except OSError:  # another process was faster, or one was stopped just before its file
            shutil.rmtree(draft)
        with file.with_suffix(".jsonl").open("w") as lines:
            lines.writelines(json.dumps(record) + "\n" for record in trained.records)
        report = {
            **self.report,
            **more,
            "cost": outcomes[-1].cost,
            "outcomes": [asdict(outcome) for outcome in outcomes],
        }
        replace(trained.architecture, report=report).save(file)

    def variables(self, file: Path, like: Any) -> Variables:
        """The variables of a network that is there."""
        return load_variables(file.with_suffix(""), like)


# ---- What is trained


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
        network, x = self.sweep.network, self.sweep.train.x[:1]
        like = jax.eval_shape(network.init, jax.random.key(0), x)
        return self.shelf.variables(self.shelf.file("seed", seed), like)


# ---- What came out


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


def points_of(rows: Sequence[Mapping[str, Any]], seed_cost: float) -> list[Point]:
    """For every kind and budget the mean over the seeds, and their spread."""
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
                )
            )
    return points


def _value(row: Mapping[str, Any]) -> float:
    """The first metric; where an older sweep left it, the accuracy."""
    return float(next(iter(row["metrics"].values()), row["accuracy"]))


def table_of(points: Sequence[Point], cost: str) -> Table:
    """Accuracy at every budget, learned beside uniform."""
    table = Table(title=f"Accuracy against {cost}", title_justify="left")
    for column in ("network", "budget", f"{cost}, of seed", "accuracy", "spread", "runs"):
        table.add_column(column, justify="left" if column == "network" else "right")
    for point in points:
        spread = "–" if point.spread is None else f"{point.spread:.2%}"
        table.add_row(
            point.series,
            point.label,
            f"{point.cost:.1%}",
            f"{point.accuracy:.2%}",
            spread,
            str(point.runs),
        )
    return table


def run(options: flags.FlagValues, command: str, console: Console) -> None:
    """Trains, collects, draws.

    Raises:
        one of `USER_ERRORS`.
    """
    started = time.monotonic()
    budgets = sorted(numbers("budgets", options.budgets, float), reverse=True)
    seeds = numbers("seeds", options.seeds, int)
    only = numbers("only", options.only, float) if options.only else budgets
    if odd := [budget for budget in only if budget not in budgets]:
        listed = ", ".join(f"{budget:g}" for budget in budgets)
        raise ConfigError(f"--only={odd[0]:g} is none of the budgets ({listed})")
    if odd := [seed for seed in seeds if seed < 0]:
        raise ConfigError(f"--seeds must be at least 0, found {odd[0]}")
    config = config_of(options)
    steps = options.retrain_steps or config.seed_steps + config.shrink_steps
    config = replace(config, retrain_steps=steps)
    data = datasets.load(options.dataset, options.data_dir)
    workdir = Path(
        options.workdir or f"runs/sweep-{options.dataset}-{options.seed_network}-{options.target}"
    )
    with Display(console=console) as display:
        sweep = Sweep(
            network=network_of(options.seed_network, data, options.width),
            train=Batch(data.train_images, data.train_labels),
            test=Batch(data.test_images, data.test_labels),
            config=config,
            listener=display,
        )
        sweep.check(budgets)
        identity = {name: options[name].value for name in IDENTITY} | {"retrain_steps": steps}
        claim_workdir(workdir, {**identity, "data_fingerprint": data.fingerprint})
        report = {
            "target": sweep.cost.name,
            "unit": sweep.cost.unit,
            "seed_cost": float(sweep.cost()),
            "seed_network": options.seed_network,
            "width": options.width,
            "dataset": options.dataset,
            "data_fingerprint": data.fingerprint,
            "config": asdict(config),
        }
        shelf = Shelf(workdir=workdir, report=report)
        study = Study(sweep=sweep, shelf=shelf, together=options.how == "vmap")
        if options.how == "processes" and not options.only:
            study.run([], seeds)  # the seed networks, which all share
            in_processes(budgets, options.jobs, command)
        study.run(only, seeds)
    rows = collected(shelf, budgets, seeds)
    points = points_of(rows, report["seed_cost"])
    results = {
        "command": command,
        "seconds": round(time.monotonic() - started, 1),
        **report,
        "how": options.how,
        "budgets": budgets,
        "seeds": seeds,
        "outcomes": rows,
        "points": [asdict(point) for point in points],
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "versions": {n: importlib.metadata.version(n) for n in ("jax", "flax", "optax", "numpy")},
    }
    write_text(workdir / "results.json", json.dumps(results, indent=2) + "\n")
    console.print(table_of(points, sweep.cost.name))
    try:
        plots.plot_tradeoff(points, workdir / "tradeoff.png", cost=sweep.cost.name)
    except ImportError as error:
        console.print(f"no picture: {error}")
    seed = humanize(report["seed_cost"], report["unit"])
    page = write_report(workdir)
    console.print(f"The seed costs {seed}. Read {page}", soft_wrap=True)


def in_processes(budgets: Sequence[float], jobs: int, command: str) -> None:
    """Trains every budget in a process of its own.

    Raises:
        ConfigError: with what the first one that failed said last.
    """
    words = shlex.split(command)[3:]

    def one(budget: float) -> subprocess.CompletedProcess[str]:
        own = [*words, "--how=turn", f"--only={budget!r}"]
        return subprocess.run(
            [sys.executable, "-m", "experiments.sweep", *own],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    with ThreadPoolExecutor(jobs) as pool:
        for budget, done in zip(budgets, pool.map(one, budgets), strict=True):
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
                raise ConfigError(f"the process for budget {budget:g} failed: {last}")


def main(argv: Sequence[str]) -> None:
    """The entry point of `python -m experiments.sweep`; `argv[0]` is the program's name."""
    launch("experiments.sweep", __doc__ or "", define_flags(), argv, run, USER_ERRORS)


if __name__ == "__main__":
    main(sys.argv)
