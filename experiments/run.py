"""Learns the structure of a seed network on a data set: the main job.

    python -m experiments.run --seed_network=resnet8 --dataset=digits --budget=0.5

trains the seed, shrinks it to half its FLOPs while training, widens what is left back to a budget,
retrains it, and leaves in --workdir: architecture.json (and shrunk.json), the variables of both
networks, metrics.jsonl, results.json, report.html, widths.png and training.png; with --tensorize
also tensors.dot, their networks for Graphviz. On two CPU cores the command above takes about 90
seconds and ends at an accuracy of 0.98 to 0.99. The same command resumes a stopped run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from rich.console import Console

from experiments import compress, export, subject
from experiments.console import flags as settings
from experiments.console.command import command_of, ending, fail
from experiments.console.display import (
    Display,
    result_of,
    result_table,
    width_table,
)
from experiments.console.flags import config_of, define_settings, read_flags
from experiments.console.tensorboard import Listeners, TensorBoard
from experiments.pictures import plots
from experiments.report import write_report
from experiments.report.page import agreement
from experiments.subject import (
    data_of,
    define_start,
    define_subject_flags,
    identity_of,
    seed_of,
    slug,
)
from morph.cycle.cycle import Cycle
from morph.cycle.cycle import Result as CycleResult
from morph.cycle.listener import Listener
from morph.cycle.measure import BASELINES
from morph.errors import ConfigError, MissingExtraError
from morph.files import write_text
from morph.tensorize.diagram import to_dot
from morph.training.mesh import connect, is_first
from morph.training.peers import watch
from regularizers import json_files
from regularizers.costs.cost import SEEDS

define_settings()
flags.adopt_module_key_flags(settings)
compress.define_compression(flags.FLAGS, compress=None)
flags.adopt_module_key_flags(compress)
define_subject_flags(seed_network="resnet8", dataset="digits", width=1.0)
define_start()
flags.adopt_module_key_flags(subject)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where everything goes; runs/DATA-NETWORK if not given."
)
CHECKPOINT_SECONDS = flags.DEFINE_float(
    "checkpoint_seconds", 60.0, "A checkpoint is left at least this often.", 0.0
)
CHECKPOINT_STEPS = flags.DEFINE_integer(
    "checkpoint_steps", None, "A checkpoint is also left after this many steps.", 1
)
TENSORBOARD = flags.DEFINE_bool(
    "tensorboard", False, "Also write scalars for TensorBoard, to WORKDIR/tensorboard."
)
EXPORT = flags.DEFINE_list(
    "export", [], f"Files for elsewhere at the end: some of {', '.join(export.TARGETS)}."
)
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of process 0, in a run of several processes."
)
PROCESS_ID = flags.DEFINE_integer("process_id", None, "The number of this process, from 0.", 0)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are.", 1)


def run(command: str) -> None:
    """Runs what the flags ask for and shows what came out."""
    started = time.monotonic()
    config = config_of()
    if EXPORT.value:
        export.targets_of(EXPORT.value)  # or it says what is wrong, before any training
    if flags.FLAGS["compress"].value:
        compress.compression_of(flags.FLAGS)  # likewise
    if connect(COORDINATOR.value, PROCESS_ID.value, NUM_PROCESSES.value):
        watch(partial(fail, command))
    data = data_of(flags.FLAGS, {})
    network, name = seed_of({}, flags.FLAGS, data)
    workdir = Path(WORKDIR.value or f"runs/{slug(data.name)}-{slug(name)}")
    goal = config.budget if config.shrink_to is None else config.shrink_to
    ratio = goal if isinstance(goal, float) else None
    with ExitStack() as held:
        listeners: list[Listener] = [display := held.enter_context(Display(budget_ratio=ratio))]
        if TENSORBOARD.value and is_first():
            listeners.append(held.enter_context(TensorBoard(workdir / "tensorboard")))
        cycle = Cycle(
            network=network,
            train=data.train,
            test=data.test,
            config=config,
            workdir=workdir,
            identity=identity_of(name, data, flags.FLAGS["width"].value),
            start=flags.FLAGS["start"].value,
            listener=Listeners(listeners),
            command=command,
            checkpoint_seconds=CHECKPOINT_SECONDS.value,
            checkpoint_steps=CHECKPOINT_STEPS.value,
        )
        result = cycle.run()
    if not is_first():
        return
    seconds = time.monotonic() - started
    page = write_report(workdir)
    missing = draw(workdir, result)
    show(display, result)
    if missing:
        display.print(f"no pictures: {missing}")
    if EXPORT.value or flags.FLAGS["compress"].value:
        ship(workdir, command, display.console)
        page = write_report(workdir)
    display.console.print(
        f"\nDone in {seconds:.0f} s. Look at {page}, read {workdir}/architecture.json",
        soft_wrap=True,
    )


def ship(workdir: Path, command: str, console: Console) -> None:
    """Compresses and exports what a run learned, as far as flags ask for it."""
    options = flags.FlagValues()
    define_subject_flags(options)
    compress.define_task_flags(options)
    # The run's own report tells the rest.
    given = ("model", "train_kwarg", "data", "data_dir", "loss", "metrics")
    named = {name: flags.FLAGS[name].value for name in given if flags.FLAGS[name].present}
    options(["run", *(f"--{name}={value}" for name, value in named.items())])
    learned = compress.read(workdir, options)
    variables = learned.variables
    if flags.FLAGS["compress"].value:
        config = compress.compression_of(flags.FLAGS)
        variables = compress.compress(workdir, learned, config, command, console)
    if EXPORT.value:
        targets = export.targets_of(EXPORT.value)
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
        plots.plot_widths(width_rows(result), workdir / "widths.png")
        plots.plot_training(read_records(workdir), workdir / "training.png")
    except MissingExtraError as error:
        return error
    return None


def show(display: Display, result: CycleResult) -> None:
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
            [result_of(asdict(outcome)) for outcome in outcomes],
            cost=report["target"] if own else "",
            unit=report["unit"] if report["unit"] != SEEDS else "",
        )
    )
    for outcome in outcomes:
        if outcome.logit_difference is not None:
            display.print(f"{outcome.name}: {agreement(asdict(outcome))}")
    if flags.FLAGS["start"].value:
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
    """The entry point of `python -m experiments.run`."""
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # Orbax tells every step of every checkpoint
    command = command_of("experiments.run", sys.argv)
    with ending(command):
        if len(argv) > 1:
            raise ConfigError(f"unexpected arguments: {' '.join(argv[1:])}; flags start with --")
        run(command)


def parsed(argv: Sequence[str]) -> list[str]:
    """What is left of the command line; a flag that cannot be taken ends it as other errors do."""
    with ending(command_of("experiments.run", argv)):
        return read_flags(flags.FLAGS, argv)


if __name__ == "__main__":
    app.run(main, flags_parser=parsed)
