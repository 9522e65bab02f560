"""Compresses a learned network, writes it to a file, reads that back, and checks every bit.

    morph compress --workdir=runs/digits-resnet8 --compress=deep

The working directory is that of `morph run`, `morph prune` or `morph retrain`: its
architecture.json names the seed network and the data set. The file, WORKDIR/network.morph, holds
everything that the network needs; WORKDIR/compressed.json says what was measured after each stage.
`--compress` is `deep` (prune, share weights, code: Deep Compression), `prune`, `fixed` (dynamic
fixed point) or `ternary` (trained ternary quantization).
"""

from __future__ import annotations

from absl import flags

from experiments.console.declared import Command
from experiments.console.flags import (
    check_workdir,
    define_compression,
    define_subject_flags,
    define_task_flags,
)


def define(own: flags.FlagValues) -> None:
    """Its flags."""
    flags.DEFINE_string("workdir", None, "The working directory of the run.", flag_values=own)
    define_compression(own, compress="deep")
    define_subject_flags(own)
    define_task_flags(own)


COMMAND = Command(
    name="compress",
    help=__doc__,
    declare=define,
    common=(
        "workdir",
        "compress",
        "sparsity",
        "clusters",
        "word_length",
        "compress_steps",
        "compress_learning_rate",
        "model",
        "data",
        "loss",
        "metrics",
    ),
    check=check_workdir,
)
