"""Learns the structure of a seed network on a data set: what `morph run` does."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console

from experiments import compress, export, pictures
from experiments.commands.run import COMMAND
from experiments.console.command import LOST, fail, launch
from experiments.console.display import (
    Display,
    result_of,
    result_table,
    width_table,
)
from experiments.console.flags import config_of, define_subject_flags, define_task_flags
from experiments.console.tensorboard import Listeners, TensorBoard
from experiments.measured import measured
from experiments.report import write_report
from experiments.report.page import agreement
from experiments.subject import data_of, identity_of, seed_of, slug
from experiments.tested import tested
from morph.cycle.cycle import Cycle
from morph.cycle.listener import Listener
from morph.cycle.measure import BASELINES
from morph.cycle.result import Result as CycleResult
from morph.errors import MissingExtraError
from morph.facts import write_facts
from morph.files import write_text
from morph.tensorize.diagram import to_dot
from morph.training.mesh import is_first
from morph.training.peers import join
from regularizers import json_files
from regularizers.costs.cost import SEEDS


def run(options: flags.FlagValues, command: str, console: Console) -> None:
    """Runs what the flags ask for and shows what came out."""
    started = time.monotonic()
    config = config_of(options)
    if options.export:
        export.targets_of(options.export)  # or it says what is wrong, before any training
    if options.compress:
        compress.compression_of(options)  # likewise
    gone = partial(fail, command, status=LOST)
    join(gone, options.coordinator, options.process_id, options.num_processes)
    data = data_of(options, {})
    network, name = seed_of({}, options, data)
    workdir = Path(options.workdir or f"runs/{slug(data.name)}-{slug(name)}")
    goal = config.budget if config.shrink_to is None else config.shrink_to
    ratio = goal if isinstance(goal, float) else None
    with ExitStack() as held:
        listeners: list[Listener] = [
            display := held.enter_context(Display(console=console, budget_ratio=ratio))
        ]
        if options.tensorboard and is_first():
            listeners.append(held.enter_context(TensorBoard(workdir / "tensorboard")))
        cycle = Cycle(
            network=network,
            train=data.train,
            test=data.test,
            config=config,
            workdir=workdir,
            identity=identity_of(name, data, options.width),
            start=options.start,
            listener=Listeners(listeners),
            command=command,
            mesh=options.mesh,
            shard=options.shard,
            checkpoint_seconds=options.checkpoint_seconds,
            checkpoint_steps=options.checkpoint_steps,
        )
        result = cycle.run()
    if not is_first():
        return
    times = measured(network, result.architectures, data.x)
    told = json_files.read_object(workdir / "results.json")
    answers = tested(result.network, result.variables, data.test)
    seconds = time.monotonic() - started
    more = {"seconds": round(seconds, 1), "measured": times, "tested": answers}
    write_facts(workdir, {**told, **more})
    page = write_report(workdir)
    missing = draw(workdir, result)
    show(display, result, times, against_start=options.start is not None)
    if missing:
        display.print(f"no pictures: {missing}")
    if options.export or options.compress:
        ship(workdir, options, command, console)
        page = write_report(workdir)
    console.print(
        f"\nDone in {seconds:.0f} s. Look at {page}, read {workdir}/architecture.json",
        soft_wrap=True,
    )


def ship(workdir: Path, asked: flags.FlagValues, command: str, console: Console) -> None:
    """Compresses and exports what a run learned, as far as flags ask for it."""
    options = flags.FlagValues()
    define_subject_flags(options)
    define_task_flags(options)
    # The run's own report tells the rest.
    given = ("model", "train_kwarg", "data", "data_dir", "loss", "metrics")
    named = {name: asked[name].value for name in given if asked[name].present}
    options(["run", *(f"--{name}={value}" for name, value in named.items())])
    learned = compress.read(workdir, options)
    variables = learned.variables
    if asked.compress:
        config = compress.compression_of(asked)
        variables = compress.compress(workdir, learned, config, command, console)
    if asked.export:
        targets = export.targets_of(asked.export)
        export.export(workdir, learned, variables, targets, command, console)


def width_rows(result: CycleResult) -> list[tuple[str, int, int, int]]:
    """For each group its name, seed width, shrunk width and final width."""
    shrunk = result.shrunk.widths
    return [
        (name, group.seed_width, shrunk[name], group.width)
        for name, group in result.architecture.groups.items()
    ]


def draw(workdir: Path, result: CycleResult) -> MissingExtraError | None:
    """Draws the pictures; what is missing for that, if they cannot be drawn."""
    if result.architecture.factorized:
        write_text(workdir / "tensors.dot", to_dot(result.architecture.factorized))
    try:
        pictures.plot_widths(width_rows(result), workdir / "widths.png")
        pictures.plot_training(read_records(workdir), workdir / "training.png")
    except MissingExtraError as error:
        return error
    return None


def show(
    display: Display,
    result: CycleResult,
    times: Mapping[str, Mapping[str, Any]],
    *,
    against_start: bool,
) -> None:
    """Prints the tables."""
    order = {"seed": 0, **dict.fromkeys(BASELINES, 2)}
    outcomes = sorted(result.outcomes, key=lambda outcome: order.get(outcome.name, 1))
    display.print("")
    display.print(width_table(width_rows(result)))
    display.print("")
    report = result.architecture.report
    own = report["target"] not in ("flops", "model_size")  # those have columns anyway
    display.print(
        result_table(
            [result_of(asdict(one), times.get(one.name)) for one in outcomes],
            cost=report["target"] if own else "",
            unit=report["unit"] if report["unit"] != SEEDS else "",
        )
    )
    for outcome in outcomes:
        if outcome.logit_difference is not None:
            display.print(f"{outcome.name}: {agreement(asdict(outcome))}")
    if against_start:
        display.print(cost_of_shrinking(result.against_seed))


def cost_of_shrinking(against: Mapping[str, float]) -> str:
    """What a network is and costs against the one that was given."""
    ratios = ("cost", "flops", "parameters")
    costs = ", ".join(f"{name} {100 * against[name]:.1f} %" for name in ratios)
    metrics = ", ".join(
        f"{name} {value:+.4g}" for name, value in against.items() if name not in ratios
    )
    return f"against the network that was given: {metrics}; {costs}"


def read_records(workdir: Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl."""
    return list(json_files.read_records(workdir / "metrics.jsonl"))


def main(argv: Sequence[str]) -> None:
    """The entry point of `python -m experiments.run`; `argv[0]` is the program's name."""
    launch(COMMAND, argv, run)


if __name__ == "__main__":
    main(sys.argv)
