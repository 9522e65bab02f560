"""Learns the structure of a seed network on a data set: the main command.

    morph run --seed_network=resnet8 --dataset=digits --budget=0.5

trains the seed network, shrinks it to half of its FLOPs while training, and trains the small
network. With a network, data and a loss of your own:

    morph run --model=mine.py:Net --data=mine.py:data --loss=mine.py:loss --budget=2ms --target=here

The directory --workdir then holds report.html, architecture.json and shrunk.json, the variables of
both networks, metrics.jsonl, results.json, widths.png and training.png; with --tensorize also
tensors.dot, a drawing for Graphviz. The same command resumes a run that was stopped.
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from experiments.console.declared import Command
from experiments.console.flags import (
    SUBJECT,
    config_of,
    define_compression,
    define_settings,
    define_start,
    define_subject_flags,
)
from experiments.vocabulary import EXPORTS
from morph.cycle.config import Placement, check_target
from morph.settings import check_settings


def define(own: flags.FlagValues) -> None:
    """Its flags."""
    define_subject_flags(own, seed_network="resnet8", dataset="digits", width=1.0)
    define_start(own)
    flags.DEFINE_string(
        "workdir",
        None,
        "The working directory; by default runs/DATA-NETWORK.",
        flag_values=own,
    )
    define_settings(own)
    define_compression(own, compress=None)
    flags.DEFINE_float(
        "checkpoint_seconds",
        60.0,
        "A checkpoint is written at least this often.",
        0.0,
        flag_values=own,
    )
    flags.DEFINE_integer(
        "checkpoint_steps",
        None,
        "A checkpoint is also written after this many steps.",
        1,
        flag_values=own,
    )
    flags.DEFINE_bool(
        "tensorboard",
        False,
        "Also write scalars for TensorBoard, to WORKDIR/tensorboard.",
        flag_values=own,
    )
    flags.DEFINE_list(
        "export",
        [],
        f"Also export the network: some of {', '.join(EXPORTS)}.",
        flag_values=own,
    )
    define_settings(own, Placement)
    flags.DEFINE_string(
        "coordinator",
        None,
        "host:port of process 0, in a run of several processes.",
        flag_values=own,
    )
    flags.DEFINE_integer(
        "process_id", None, "The number of this process, from 0.", 0, flag_values=own
    )
    flags.DEFINE_integer("num_processes", None, "How many processes there are.", 1, flag_values=own)


def check(options: flags.FlagValues, words: Sequence[str]) -> None:
    """Raises for a setting that no run can have."""
    check_settings(config_of(options))
    check_target(options.target)


COMMAND = Command(
    name="run",
    help=__doc__,
    declare=define,
    common=(
        *SUBJECT,
        "target",
        "budget",
        "shrink_to",
        "cycles",
        "penalty",
        "seed_steps",
        "shrink_steps",
        "retrain_steps",
        "optimizer",
        "learning_rate",
        "batch_size",
        "baselines",
        "tensorize",
        "compress",
        "export",
        "workdir",
        "seed",
    ),
    check=check,
)
