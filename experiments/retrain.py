"""Rebuilds a learned network from its JSON, and trains it: what `morph retrain` does."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import reduce
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from absl import flags
from rich.console import Console

from experiments.commands.retrain import COMMAND
from experiments.console.command import launch
from experiments.console.display import Display, result_of, result_table
from experiments.measured import measured
from experiments.report import write_report
from experiments.subject import data_of, identity_of, seed_of
from experiments.tested import tested
from morph.architecture.architecture import Architecture
from morph.cycle.config import CycleConfig, renewed
from morph.cycle.stamp import stamped
from morph.cycle.sweep import Sweep
from morph.cycle.unused import UNUSED_BY_RETRAIN, check_unused
from morph.cycle.workdir import load_variables, locked, save_variables
from morph.errors import ArchitectureError, ConfigError, WorkdirError
from morph.facts import facts_of, lines_of, write_facts
from morph.files import together, write_text
from morph.imports import is_path
from morph.network import Network, Variables
from morph.settings import read_settings
from regularizers.channels.calls import flat_paths

# What tells how a network was shrunk, and is only told again; a teacher would change the training.
_PAST = {*UNUSED_BY_RETRAIN} - {"distill"}
_MOST_DIFFERENCES = 5  # that a message lists


def chained(paths: Sequence[str]) -> Architecture:
    """The architectures of some files, one after the other.

    Raises:
        ArchitectureError: if one is broken, or two do not follow on each other. OSError.
    """
    return reduce(Architecture.then, map(Architecture.load, paths))


def config_of(report: Mapping[str, Any], options: flags.FlagValues) -> CycleConfig:
    """How to train: as the network was learned, but for what the flags say.

    What tells how it was shrunk is left out; a flag for it is refused, as is a teacher. What an
    older version did not write is as by default.

    Raises:
        ConfigError: naming the setting, and why it has no use; or those that only a newer version
            knows.
    """
    before = asdict(read_settings(CycleConfig, report.get("config", {}), renewed))
    told = {name: value for name, value in before.items() if name not in _PAST}
    own = {name: options[name].value for name in before if options[name].present}
    check_code(told, own)
    config = CycleConfig(**{**told, **own})
    check_unused(config, UNUSED_BY_RETRAIN)
    return config


def check_code(told: Mapping[str, Any], own: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Raises if a report names code to run that no flag names.

    Raises:
        ConfigError: with the flag to give.
    """
    for name in ("loss", "metrics"):
        if is_path(str(told.get(name, ""))) and name not in own:
            raise ConfigError(
                f"the architecture was learned with {name} {told[name]!r}, code to run; to run it "
                f"give --{name}={told[name]}"
            )


def check_seed(architecture: Architecture, network: Network, x: Any, name: str) -> None:
    """Raises unless the architecture is one of this seed network.

    Raises:
        ArchitectureError: naming what differs.
    """
    made = jax.eval_shape(network.init, jax.random.key(0), x)
    paths, leaves, _ = flat_paths(made)
    found = {path: tuple(leaf.shape) for path, leaf in zip(paths, leaves, strict=True)}
    told = {path: tuple(variable.shape) for path, variable in architecture.variables.items()}
    differences = [
        f"{path}: {_shape(told.get(path))} in the architecture, {_shape(found.get(path))} in {name}"
        for path in dict.fromkeys([*told, *found])
        if told.get(path) != found.get(path)
    ]
    if differences:
        more = len(differences) - _MOST_DIFFERENCES
        listed = "; ".join(differences[:_MOST_DIFFERENCES])
        raise ArchitectureError(
            f"the architecture is of another seed network than {name}: {listed}"
            + (f"; and {more} more" if more > 0 else "")
            + ". Check --seed_network, --width and --dataset, or --model."
        )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else str(list(shape))


def start_of(
    place: str | None, architecture: Architecture, network: Network, x: Any
) -> Variables | None:
    """The variables to start from, read and checked; None to draw them.

    Raises:
        ArchitectureError: if they have other shapes than the architecture's.
    """
    if place is None:
        return None
    if not Path(place).is_dir():
        raise WorkdirError(f"--variables={place} is no directory of saved variables")
    like = architecture.abstract(jax.eval_shape(network.init, jax.random.key(0), x))
    wanted, found = (_shapes(tree) for tree in (like, load_variables(place)))
    for path in dict.fromkeys([*wanted, *found]):
        if wanted.get(path) != found.get(path):
            raise ArchitectureError(
                f"--variables={place} do not fit the architecture: {path} is "
                f"{_shape(found.get(path))} there, and must be {_shape(wanted.get(path))}"
            )
    return load_variables(place, like)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    paths, leaves, _ = flat_paths(tree)
    return {path: tuple(np.shape(leaf)) for path, leaf in zip(paths, leaves, strict=True)}


def run(options: flags.FlagValues, command: str, console: Console) -> None:
    """Rebuilds, trains, tests, and writes what came out.

    Raises:
        one of `USER_ERRORS`, or InspectError.
    """
    started = time.monotonic()
    architecture = chained(options.architecture)
    report = architecture.report
    config = config_of(report, options)
    data = data_of(options, report)
    network, name = seed_of(report, options, data)
    x = data.x
    check_seed(architecture, network, x, name)
    start = start_of(options.variables, architecture, network, x)
    workdir = Path(options.workdir)
    with locked(workdir):
        with Display(console=console) as display:
            sweep = Sweep(
                network=network,
                train=data.whole("retrain"),
                test=data.test,
                config=config,
                listener=display,
            )
            sweep.check([])
            trained = sweep.train_one(architecture, config.seed, start)
        seeds = [o for o in report.get("outcomes", ()) if o["name"] == "seed"]
        outcome = sweep.outcome("retrained", trained, config.retrain_steps)
        own = {"seed": Architecture.of_seed(sweep.traces.graph), outcome.name: architecture}
        times = measured(network, own, x)
        answers = tested(network.resized(architecture), trained.variables, data.test)
        before = report.get("config", {})
        facts = facts_of(
            command,
            time.monotonic() - started,
            {
                "target": sweep.cost.name,
                "unit": sweep.cost.unit,
                "seed_cost": float(sweep.cost()),
                "cost": outcome.cost,
                **identity_of(name, data, options.width or report.get("width")),
                "config": asdict(config) | {name: before[name] for name in _PAST if name in before},
                "outcomes": [*seeds, asdict(outcome)],
            },
        )
        kept = replace(architecture, report={**report, **facts})
        with together(workdir) as aside:
            stamped(kept, trained.variables).save(aside / "architecture.json")
            save_variables(aside / "variables", trained.variables)
            write_text(aside / "metrics.jsonl", lines_of(trained.records))
            write_facts(aside, facts | {"measured": times, "tested": answers})
        page = write_report(workdir)
    console.print(
        result_table([result_of(one, times.get(one["name"])) for one in facts["outcomes"]])
    )
    console.print(f"Read {page}", soft_wrap=True)


def main(argv: Sequence[str]) -> None:
    """The entry point of `python -m experiments.retrain`; `argv[0]` is the program's name."""
    launch(COMMAND, argv, run)


if __name__ == "__main__":
    main(sys.argv)
