"""Exports a learned network to files that run elsewhere: what `morph export` does."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from rich.console import Console

from experiments import compress
from experiments.commands.export import COMMAND
from experiments.console.command import launch
from experiments.console.display import figure_table
from experiments.console.waiting import waiting
from experiments.report import write_report
from experiments.report.compression import EXPORT_HEAD, export_cells
from morph import export as exports
from morph.compress.coding import container
from morph.cycle.stamp import STAMP, check_stamp
from morph.cycle.workdir import locked
from morph.errors import ConfigError, ExportError
from morph.export.exported import Runner
from morph.files import together, write_text
from morph.kernels.compressed import unpacked
from morph.network import Variables
from morph.training.data import first_of, passes
from morph.training.evaluate import Evaluator
from morph.untrusted import in_markdown
from regularizers import json_files

FIGURES, FOLDER = "exported.json", "export"
CALIBRATION = 300  # training examples that int8 ranges are taken from


class Target(NamedTuple):
    """One kind of file.

    Attributes:
        suffix: of the file.
        export: `(fn, variables, example, path, training inputs)`.
    """

    suffix: str
    export: Callable[[Any, Any, Any, Path, Any], exports.Exported]


TARGETS: Mapping[str, Target] = {
    "stablehlo": Target(
        ".stablehlo",
        lambda fn, variables, x, path, inputs: exports.to_stablehlo(fn, variables, x, path),
    ),
    "onnx": Target(
        ".onnx",
        lambda fn, variables, x, path, inputs: exports.to_onnx(fn, variables, x, path),
    ),
    "onnx_int8": Target(
        ".int8.onnx",
        lambda fn, variables, x, path, inputs: exports.to_onnx_int8(
            fn, variables, x, path, calibration=inputs[:CALIBRATION]
        ),
    ),
    "tflite": Target(
        ".tflite",
        lambda fn, variables, x, path, inputs: exports.to_tflite(
            fn, variables, x, path, calibration=inputs[:CALIBRATION]
        ),
    ),
}


def part(name: str) -> Any:
    """A module of `morph.export`, loaded when it is needed: it loads large packages, that talk."""
    return importlib.import_module(f"morph.export.{name}")


def targets_of(names: Sequence[str]) -> dict[str, Target]:
    """The targets that a flag names.

    Raises:
        ConfigError: if there is none, or one is unknown. MissingExtraError: if packages are.
    """
    if not names or not set(names) <= set(TARGETS):
        raise ConfigError(
            f"--export takes some of {', '.join(TARGETS)}, separated by commas; found "
            f"{','.join(names)!r}"
        )
    targets = {name: TARGETS[name] for name in names}
    for name in ("bundle", *targets):
        part(name).check_installed()
    return targets


def export(
    workdir: Path,
    learned: compress.Learned,
    variables: Variables,
    targets: Mapping[str, Target],
    command: str,
    console: Console,
) -> None:
    """Writes a bundle, checks every file on the test set, and leaves the figures.

    Args:
        workdir: of the run.
        learned: what it holds.
        variables: to export; they may be compressed.
        targets: by name.
        command: for the model card.
        console: where to print.

    Raises:
        ExportError: if an operation cannot be exported, naming it, or a package is missing.
    """
    with together(workdir) as aside:
        rows, placed = _written(aside, learned, variables, targets, command, console)
    title = f"Exports, in {workdir / FOLDER}"
    console.print(figure_table(title, EXPORT_HEAD, map(export_cells, rows)))
    if placed:
        console.print(str(placed), soft_wrap=True)


def _written(
    place: Path,
    learned: compress.Learned,
    variables: Variables,
    targets: Mapping[str, Target],
    command: str,
    console: Console,
) -> tuple[list[dict[str, Any]], exports.Placement | None]:
    """Writes the bundle and the figures to a folder; the figures, and what an Edge TPU runs."""
    folder = place / FOLDER
    folder.mkdir()
    network, data = learned.network, learned.data
    dense = jax.tree.map(jnp.asarray, unpacked(variables))
    inputs = first_of(data.train, "training pipeline").rows(slice(0, CALIBRATION)).x
    reference = Evaluator(data.test).outputs(jax.jit(network.predict), dense)
    if not jax.tree_util.all_leaves([inputs]) or not jax.tree_util.all_leaves([reference]):
        raise ExportError(
            "--export takes networks of one input array and one output array; this one takes "
            f"{jax.tree.map(np.shape, inputs)} and gives {jax.tree.map(np.shape, reference)}: "
            "export morph.compact(...) with a function that calls it as the target needs"
        )
    test = [jax.tree.map(np.asarray, batch) for batch in passes(data.test)]
    asked = np.concatenate([batch.x for batch in test])
    labels = None
    if learned.task.decide is not None:  # outputs are logits of classes
        labels = np.concatenate([batch.y for batch in test])
    rows: list[dict[str, Any]] = []
    written: list[exports.Exported] = []
    agreements: dict[str, exports.Agreement] = {}
    for name, target in targets.items():
        path = folder / f"network{target.suffix}"
        with waiting(console, "export", f"writing and checking {name}"):
            made = target.export(network.predict, dense, inputs[:8], path, inputs)
            run: Runner = part(name).load(path)
            agreement = exports.compare(reference, run(asked), labels)
        console.print(f"{name}: {made.size_bytes:,} bytes, checked on the test set")
        written.append(made)
        agreements[name] = agreement
        rows.append(
            {
                "name": name,
                "accuracy": agreement.accuracy.get(1),
                "reference_accuracy": agreement.reference_accuracy.get(1),
                "logit_difference": agreement.logit_difference,
                "bytes": made.size_bytes,
                "latency_ms": compress.milliseconds(partial(run, asked[:1])),
                "note": made.note,
            }
        )
    placed = exports.placement(folder / "network.tflite") if "tflite" in targets else None
    report = learned.architecture.report
    final: Mapping[str, Any] = next(iter(report.get("outcomes", ())[-1:]), {})
    part("bundle").save(
        folder,
        dense,
        written,
        name=f"{learned.about['seed_network']} on {learned.about['dataset']}",
        figures={
            **({} if labels is None else {"accuracy": agreement.reference_accuracy[1]}),
            "parameters": compress.nonzero({"params": dense["params"]}),
            **({"FLOPs": final["flops"]} if "flops" in final else {}),
        },
        agreements=agreements,
        architecture=learned.architecture,
        examples=(asked, reference),
        command=command,
        notes="\n".join(f"- {in_markdown(line)}" for line in str(placed or "").splitlines()),
    )
    figures = {
        "command": command,
        STAMP: learned.about[STAMP],
        "device": jax.devices()[0].device_kind,
        "rows": rows,
        "edge_tpu": str(placed or ""),
    }
    write_text(place / FIGURES, json_files.text(figures, indent=2))
    return rows, placed


def run(options: flags.FlagValues, command: str, console: Console) -> None:
    """Exports what a working directory holds, or checks what was exported.

    Raises:
        one of `USER_ERRORS`, or InspectError.
    """
    workdir = Path(options.workdir)
    if options.check:
        part("bundle").check_installed()
        for name, off in part("bundle").check(workdir / FOLDER).items():
            console.print(f"{name}: as JAX gave it, but for {off:.1e}", soft_wrap=True)
        return
    targets = targets_of(options.export)
    with locked(workdir, make=False):
        learned = compress.read(workdir, options)
        variables, file = learned.variables, workdir / compress.FILE
        if options.compressed and file.exists():
            contents = container.load(file)
            check_stamp(
                {STAMP: None, **contents.network},
                variables,
                f"{file} was made from another network than {workdir / 'variables'}",
                "run morph compress again, or export with --nocompressed",
            )
            variables = dict(contents.variables)
            console.print(f"exporting {file}", soft_wrap=True)
        export(workdir, learned, variables, targets, command, console)
    console.print(f"Look at {write_report(workdir)}", soft_wrap=True)


def main(argv: Sequence[str]) -> None:
    """The entry point of `python -m experiments.export`; `argv[0]` is the program's name."""
    launch(COMMAND, argv, run)


if __name__ == "__main__":
    main(sys.argv)
