"""Prunes a trained network in one go, without training it further.

    morph prune --model=mine.py:Net --data=mine.py:data --start=mine.safetensors --budget=0.7

measures on --examples of the training set how much the loss depends on each channel, each layer and
each block, removes what is worth least until the network meets the budget, re-estimates the
statistics of normalizations, and tests both networks. Without labels, or with --distill=1, the
network's own outputs are preserved instead. --workdir then holds architecture.json, the variables,
results.json and report.html. To train the pruned network further, use `morph retrain` with that
architecture.json and --variables=WORKDIR/variables.
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from experiments.console.declared import Command
from experiments.console.flags import define_settings, define_start, define_subject_flags
from morph.errors import ConfigError

BY = ("curves", "scores", "refit")
# What this command takes of a run's settings.
SETTINGS = (
    "target", "budget", "loss", "metrics", "label_smoothing", "distill", "blocks", "min_width",
    "floors", "round_to", "batch_size", "seed",
)  # fmt: skip


def define(own: flags.FlagValues) -> None:
    """Its flags."""
    define_subject_flags(own, seed_network="resnet8", dataset="digits", width=1.0)
    define_start(own)
    define_settings(own, only=SETTINGS, budget=0.7, batch_size=32)
    flags.DEFINE_integer(
        "examples", 1024, "How many training examples to measure on.", 1, flag_values=own
    )
    flags.DEFINE_enum(
        "by",
        BY[0],
        list(BY),
        "How layers compete: by measured curves; by scores alone, which is faster and removes no "
        "block; or by refit, likewise, by what the other channels cannot make up for, which then "
        "do so, by least squares.",
        flag_values=own,
    )
    flags.DEFINE_integer(
        "prune_steps", 1, "The number of steps in which the budget is reached.", 1, flag_values=own
    )
    flags.DEFINE_string(
        "text_of",
        None,
        "Of a network that tells each next token: package.module:function, from tokens to their "
        "text. The report then shows how both networks go on.",
        flag_values=own,
    )
    flags.DEFINE_string("workdir", "runs/prune", "The working directory.", flag_values=own)


def check(options: flags.FlagValues, words: Sequence[str]) -> None:
    """Raises if there are no weights, or settings that need others."""
    if options.start is None:
        raise ConfigError(
            "--start is missing: name the weights to prune, a directory of Orbax, a file of "
            "safetensors, or package.module:function; morph run trains a network from scratch"
        )
    if options.distill not in (0.0, 1.0):
        raise ConfigError(
            f"--distill={options.distill}: a network is pruned by the labels, 0, or by its own "
            "outputs, 1"
        )


COMMAND = Command(
    name="prune",
    help=__doc__,
    declare=define,
    common=(
        "model",
        "data",
        "start",
        "budget",
        "target",
        "loss",
        "metrics",
        "examples",
        "batch_size",
        "by",
        "floors",
        "round_to",
        "workdir",
        "seed",
    ),
    check=check,
)
