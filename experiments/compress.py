"""Compresses a learned network to a file: what `morph compress` does."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from rich.console import Console

from experiments.commands.compress import COMMAND
from experiments.console.command import launch
from experiments.console.display import figure_table
from experiments.console.flags import settings_from
from experiments.console.waiting import waiting
from experiments.report import write_report
from experiments.report.compression import stage_cells, stage_head
from experiments.retrain import check_code, check_seed, start_of
from experiments.subject import Data, data_of, fact, identity_of, seed_of
from morph.architecture.architecture import Architecture
from morph.compress.coding import container, table
from morph.compress.coding.symbols import check_installed
from morph.compress.config import CompressConfig
from morph.compress.methods import Stage, compressed
from morph.compress.training import evaluated
from morph.cycle.config import CycleConfig
from morph.cycle.recipe import Recipe
from morph.cycle.stamp import STAMP, check_pair, stamp_of
from morph.cycle.workdir import locked
from morph.files import together, write_bytes, write_text
from morph.kernels.compressed import Pruned, Shared, is_compressed
from morph.network import Network, Variables
from morph.settings import check_settings
from morph.training.data import first_of
from morph.training.evaluate import Evaluator
from regularizers import json_files
from regularizers.calibration.timing import compiled, interleaved

FILE, FIGURES = "network.morph", "compressed.json"
SECONDS = 0.3  # that the timing of one call takes


def compression_of(options: flags.FlagValues) -> CompressConfig:
    """The configuration that flags ask for; before any work it says if a package is missing."""
    check_installed()
    return settings_from(CompressConfig, options)


def nonzero(variables: Variables) -> int:
    """Parameters that are not zero."""
    leaves = jax.tree.leaves(variables["params"], is_leaf=is_compressed)
    return sum(_nonzero(leaf) for leaf in leaves)


def _nonzero(leaf: Any) -> int:
    if isinstance(leaf, Shared):
        return int(np.count_nonzero(leaf.codes))
    if isinstance(leaf, Pruned):
        return int(np.count_nonzero(leaf.kept))
    return int(np.count_nonzero(leaf.dense() if is_compressed(leaf) else leaf))


def milliseconds(run: Callable[[], Any]) -> float:
    """Of one call, the least of some rounds."""
    return round(1e3 * float(interleaved([run], seconds=SECONDS, rounds=7).min()), 4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learned:
    """What a working directory holds.

    Attributes:
        architecture: learned.
        network: of its widths.
        variables: trained.
        data: of its data set.
        task: what it was trained for, as a recipe.
        about: how to build the seed, and the checksum of the variables: for the file.
    """

    architecture: Architecture
    network: Network
    variables: Variables
    data: Data
    task: Recipe
    about: Mapping[str, Any]


def read(workdir: Path, options: flags.FlagValues) -> Learned:
    """What a run learned; options are those of `define_subject_flags` and `define_task_flags`.

    Raises:
        one of `USER_ERRORS`.
    """
    architecture = Architecture.load(workdir / "architecture.json")
    report = architecture.report
    data = data_of(options, report)
    seed, name = seed_of(report, options, data)
    x = data.x
    check_seed(architecture, seed, x, name)
    variables = start_of(str(workdir / "variables"), architecture, seed, x)
    assert variables is not None
    check_pair(workdir / "architecture.json", architecture, variables)
    about = identity_of(name, data, fact("width", report, options, 1.0))
    del about["data_fingerprint"]
    about[STAMP] = stamp_of(variables)
    return Learned(
        architecture=architecture,
        network=evaluated(seed.resized(architecture)),
        variables=variables,
        data=data,
        task=task_of(report, options),
        about=about,
    )


def task_of(report: Mapping[str, Any], options: flags.FlagValues) -> Recipe:
    """What a network was trained for: as its report says, but for what flags say.

    Raises:
        ConfigError: if only the report names code to run.
    """
    told = {name: report.get("config", {}).get(name) for name in ("loss", "metrics")}
    own = {name: options[name].value for name in told if options[name].value is not None}
    check_code(told, own)
    named = {name: value for name, value in {**told, **own}.items() if value is not None}
    recipe = Recipe(config=CycleConfig(**named))
    check_settings(recipe.config)
    return recipe


def run(options: flags.FlagValues, command: str, console: Console) -> None:
    """Compresses, writes, reads, verifies, and prints what it came to.

    Raises:
        one of `USER_ERRORS`.
    """
    config, workdir = compression_of(options), Path(options.workdir)
    with locked(workdir, make=False):
        compress(workdir, read(workdir, options), config, command, console)
    console.print(f"Look at {write_report(workdir)}", soft_wrap=True)


def compress(
    workdir: Path, learned: Learned, config: CompressConfig, command: str, console: Console
) -> Variables:
    """Compresses what a working directory holds, and leaves the file and its figures there.

    Args:
        workdir: of the run.
        learned: what it holds.
        config: how to compress it.
        command: that asked for it.
        console: where to print.

    Returns:
        The variables that the file holds.
    """
    started = time.monotonic()
    evaluator = Evaluator(learned.data.test, learned.task.metrics)
    one_input = jax.tree.map(
        jax.numpy.asarray, first_of(learned.data.test, "test set").rows(slice(0, 1)).x
    )
    report = learned.architecture.report
    rows = [
        {
            "name": outcome["name"],
            "accuracy": outcome["accuracy"],
            "metrics": outcome.get("metrics", {}),
            "parameters": outcome["parameters"],
            "flops": outcome["flops"],
            "bytes": 4 * outcome["parameters"],
            "latency_ms": None,
        }
        for outcome in report.get("outcomes", ())
    ]

    def measured(stage: Stage) -> tuple[dict[str, Any], bytes]:
        one = compiled(stage.predict, stage.variables, one_input)
        packed = container.pack(stage.variables, **_more(learned, stage))
        metrics = evaluator.measure(jax.jit(stage.predict), stage.variables)
        row = {
            "name": stage.name,
            "accuracy": metrics.get("accuracy"),
            "metrics": metrics,
            "parameters": nonzero(stage.variables),
            "flops": rows[-1]["flops"] if rows else None,
            "bytes": len(packed),
            "latency_ms": milliseconds(one),
        }
        return row, packed

    stage = Stage(name="learned", variables=learned.variables, predict=learned.network.predict)
    row, packed = measured(stage)
    rows.append(row)
    before, task = len(rows) - 1, learned.task.whole
    if learned.task.loss is not None:
        task = dataclasses.replace(task, loss=learned.task.loss)
    stages = compressed(learned.network, learned.variables, learned.data.train, config, task)
    while True:
        with waiting(console, "compress", f"stage {len(rows) - before}"):
            following = next(stages, None)
            if following is None:
                break
            stage = following
            row, packed = measured(stage)
        rows.append(row)
        console.print(f"{stage.name}: {stage_head([row])[1]} {stage_cells(row)[1]}", soft_wrap=True)
    file = workdir / FILE
    with together(workdir) as aside:
        write_bytes(aside / FILE, packed)
        layers = list(table.layer_rows(_verified(aside / FILE, stage, evaluator).records))
        figures = {
            "command": command,
            STAMP: learned.about[STAMP],
            "config": dataclasses.asdict(config),
            "device": jax.devices()[0].device_kind,
            "seconds": round(time.monotonic() - started, 1),
            "file": FILE,
            "stages": rows,
            "layers": [{**dataclasses.asdict(row), "rate": round(row.rate, 2)} for row in layers],
        }
        write_text(aside / FIGURES, json_files.text(figures, indent=2))
    leaves = [(path.removeprefix("params/"), *rest) for path, *rest in map(table.cells, layers)]
    console.print(figure_table("The file, leaf by leaf", table.HEAD, leaves))
    console.print(figure_table("After each step", stage_head(rows), map(stage_cells, rows)))
    console.print(
        f"{file}: {rows[-1]['bytes']:,} bytes, {4 * learned_size(learned) / rows[-1]['bytes']:.1f} "
        "times smaller than the learned network in 32-bit weights; read back, and the same to the "
        "last bit",
        soft_wrap=True,
    )
    return stage.variables


def learned_size(learned: Learned) -> int:
    """How many numbers the learned network has."""
    return sum(leaf.size for leaf in jax.tree.leaves(learned.variables))


def _more(learned: Learned, stage: Stage) -> dict[str, Any]:
    """What a file holds besides variables."""
    architecture = learned.architecture.to_json()
    architecture["report"] = {}  # a file is small; the report stays in the working directory
    return {"architecture": architecture, "network": {**learned.about, **stage.facts}}


def _verified(file: Path, stage: Stage, evaluator: Evaluator) -> container.Contents:
    """The contents of a file that was written, read back.

    Raises:
        ContainerError: if it is not what was written.
    """
    contents = container.load(file)
    predict = jax.jit(stage.predict)
    written, read = (
        evaluator.outputs(predict, dict(variables))
        for variables in (stage.variables, contents.variables)
    )
    equal = jax.tree.all(jax.tree.map(np.array_equal, written, read))
    if not container.same(contents.variables, stage.variables) or not equal:
        raise container.ContainerError(
            f"{file} holds another network than was written; the disk may be broken: write it again"
        )
    return contents


def main(argv: Sequence[str]) -> None:
    """The entry point of `python -m experiments.compress`; `argv[0]` is the program's name."""
    launch(COMMAND, argv, run)


if __name__ == "__main__":
    main(sys.argv)
