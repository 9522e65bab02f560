"""Accuracy against cost, at several budgets: what `morph sweep` does."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields, replace
from pathlib import Path

from absl import flags
from rich.console import Console

from experiments import pictures
from experiments.commands.sweep import COMMAND, numbers
from experiments.console.command import launch
from experiments.console.display import Display, humanize
from experiments.console.flags import config_of
from experiments.jobs import CLUSTERS, parameters_of, run_jobs
from experiments.report import write_report
from experiments.study import Shelf, Study, collected, points_of, table_of
from experiments.subject import data_of, identity_of, seed_of, slug
from morph.cycle.config import CycleConfig
from morph.cycle.sweep import Sweep
from morph.cycle.unused import UNUSED_BY_SWEEP
from morph.cycle.workdir import claim_workdir
from morph.errors import ConfigError, MissingExtraError
from morph.facts import facts_of, write_facts
from morph.settings import check_settings

# What a working directory is for; budgets and seeds may be added to it.
# Of all settings the random seed says whose strengths are the unit.
SETTINGS = tuple(one.name for one in fields(CycleConfig) if one.name not in UNUSED_BY_SWEEP)


def run(options: flags.FlagValues, command: str, console: Console) -> None:
    """Trains, collects, draws.

    Raises:
        one of `USER_ERRORS`.
    """
    started = time.monotonic()
    budgets = sorted(numbers("budgets", options.budgets, float), reverse=True)
    seeds = numbers("seeds", options.seeds, int)
    only = numbers("only", options.only, float) if options.only else budgets
    config = config_of(options)
    steps = options.retrain_steps or config.seed_steps + config.shrink_steps
    config = replace(config, retrain_steps=steps)
    for seed in seeds:
        check_settings(replace(config, seed=seed))
    data = data_of(options, {})
    network, name = seed_of({}, options, data)
    workdir = Path(options.workdir or f"runs/sweep-{slug(data.name)}-{slug(name)}-{options.target}")
    with Display(console=console) as display:
        sweep = Sweep(
            network=network,
            train=data.whole("a sweep"),
            test=data.test,
            start=options.start,
            config=config,
            listener=display,
        )
        sweep.check(budgets)
        about = identity_of(name, data, options.width) | sweep.start_identity
        identity = {name: options[name].value for name in SETTINGS} | {"retrain_steps": steps}
        settings = {one.name: options[one.name].default for one in fields(CycleConfig)}
        claim_workdir(workdir, {**identity, **about}, settings)
        report = {
            "target": sweep.cost.name,
            "unit": sweep.cost.unit,
            "seed_cost": float(sweep.cost()),
            **about,
            "config": asdict(sweep.config),
        }
        shelf = Shelf(workdir=workdir, report=report)
        study = Study(sweep=sweep, shelf=shelf, together=options.how == "vmap")
        if options.how == "processes" and not options.only:
            study.run([], seeds)  # the seed networks, which all share
            in_processes(budgets, options.jobs, command)
        failed: dict[float, str] = {}
        if options.how in CLUSTERS and not options.only:
            missing = [b for b in budgets if not study.has(b, seeds)]
            failed = in_jobs(missing, command, options, workdir / "jobs", console)
        study.run([budget for budget in only if budget not in failed], seeds)
    rows = collected(shelf, budgets, seeds)
    first = next(iter(sweep.recipe.metrics.values()))
    points = points_of(rows, report["seed_cost"], lower=first.lower)
    results = facts_of(
        command,
        time.monotonic() - started,
        {
            **report,
            "how": options.how,
            "budgets": budgets,
            "seeds": seeds,
            "outcomes": rows,
            "failed": [{"budget": budget, "why": why} for budget, why in failed.items()],
            "points": [asdict(point) for point in points],
        },
    )
    write_facts(workdir, results)
    page = write_report(workdir)
    try:
        pictures.plot_tradeoff(points, workdir / "tradeoff.png", cost=sweep.cost.name)
    except MissingExtraError as error:
        console.print(f"no picture: {error}")
    console.print(table_of(points, sweep.cost.name, failed))
    seed = humanize(report["seed_cost"], report["unit"])
    console.print(f"The seed costs {seed}. Read {page}", soft_wrap=True)


def in_processes(budgets: Sequence[float], jobs: int, command: str) -> None:
    """Trains every budget in a process of its own.

    Raises:
        ConfigError: with what the first one that failed said last.
    """

    def one(budget: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            _command(command, budget),
            env={**os.environ, **_paths()},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    with ThreadPoolExecutor(jobs) as pool:
        for budget, done in zip(budgets, pool.map(one, budgets), strict=True):
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
                raise ConfigError(f"the process for budget {budget} failed: {last}")


def in_jobs(
    budgets: Sequence[float],
    command: str,
    options: flags.FlagValues,
    folder: Path,
    console: Console,
) -> dict[float, str]:
    """Trains every budget in a job of its own; for each that failed, why.

    The first one trains the seed networks, too, which all share.
    """
    names = {f"{budget:g}": budget for budget in budgets}

    def told(name: str, why: str | None) -> None:
        console.print(f"budget {name}: {why or 'done'}", soft_wrap=True)

    failed: dict[float, str] = {}
    for part in (list(names)[:1], list(names)[1:]):
        found = run_jobs(
            {name: _command(command, names[name]) for name in part},
            folder,
            options.how,
            at_once=options.jobs,
            slurm=parameters_of(options.slurm),
            env=_paths(),
            done=told,
        )
        failed |= {names[name]: why for name, why in found.items()}
    return failed


def _command(command: str, budget: float) -> list[str]:
    """The sweep's own command, for one budget."""
    words = shlex.split(command)
    words = words[next(k for k, word in enumerate(words) if word.endswith("sweep")) + 1 :]
    own = [*words, "--how=turn", f"--only={budget!r}"]
    return [sys.executable, "-P", "-m", "experiments.sweep", *own]


def _paths() -> dict[str, str]:
    """A folder `experiments` where this runs is not to be taken for this package."""
    here, more = str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([here, *filter(None, [more])])}


def main(argv: Sequence[str]) -> None:
    """The entry point of `python -m experiments.sweep`; `argv[0]` is the program's name."""
    launch(COMMAND, argv, run)


if __name__ == "__main__":
    main(sys.argv)
