"""Exports a learned network to files that run elsewhere, and checks each against JAX.

    morph export --workdir=runs/digits-resnet8 --export=stablehlo,onnx,tflite

The working directory is that of `morph run`, `morph prune` or `morph retrain`. If it holds a
compressed network (network.morph, written by `morph compress`), that network is exported with dense
kernels; --nocompressed exports the trained weights instead. WORKDIR/export is then a bundle: the
files, variables.safetensors, architecture.json, a model card with the figures, and a manifest of
checksums. `tflite` is full int8, calibrated on training images; the report predicts which of its
operations an Edge TPU would run, and how long it would take. `onnx_int8` is
calibrated likewise; its note names the layers that should stay float.
"""

from __future__ import annotations

from absl import flags

from experiments.console.declared import Command
from experiments.console.flags import check_workdir, define_subject_flags, define_task_flags
from experiments.vocabulary import EXPORTS


def define(own: flags.FlagValues) -> None:
    """Its flags."""
    flags.DEFINE_string("workdir", None, "The working directory of the run.", flag_values=own)
    flags.DEFINE_list(
        "export",
        ["stablehlo", "onnx", "tflite"],
        f"The formats to write: some of {', '.join(EXPORTS)}.",
        flag_values=own,
    )
    flags.DEFINE_bool(
        "check",
        False,
        "Only verify WORKDIR/export: the checksums, and every file beside what JAX gave.",
        flag_values=own,
    )
    flags.DEFINE_bool(
        "compressed", True, "Export the compressed network, if there is one.", flag_values=own
    )
    define_subject_flags(own)
    define_task_flags(own)


COMMAND = Command(
    name="export",
    help=__doc__,
    declare=define,
    common=(
        "workdir",
        "export",
        "check",
        "compressed",
        "model",
        "data",
        "loss",
        "metrics",
    ),
    check=check_workdir,
)
