"""Rebuilds a learned network from its JSON, with nothing else but the seed's code, and trains it.

    morph retrain --architecture=runs/digits-resnet8/architecture.json

The file names the seed network, its width, the data set and the configuration that it was learned
with. Flags override these; they are required where the file lacks a value, or names code to run. A
setting that is only about shrinking is refused. For a seed network of your own:

    morph retrain --architecture=a.json --model=package.module:attribute

where the attribute is a Linen module or its class, a morph.Network, or a function of `rngs` that
makes an NNX module, as for `morph run`; --data, --loss and --metrics are given in the same way.
Several files, given in order, are chained: each is relative to the network before it.

Weights are initialized afresh, or read from --variables. --workdir then holds architecture.json
(chained, with its report), the trained variables, metrics.jsonl, results.json and report.html.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from absl import flags

from experiments.console.declared import Command
from experiments.console.flags import define_settings, define_subject_flags
from morph.cycle.config import CycleConfig
from morph.errors import ConfigError


def define(own: flags.FlagValues) -> None:
    """Its flags."""
    flags.DEFINE_multi_string(
        "architecture", [], "The JSON file; several are chained, in order.", flag_values=own
    )
    define_subject_flags(own)
    flags.DEFINE_string("variables", None, "Start from these saved variables.", flag_values=own)
    flags.DEFINE_string("workdir", "runs/retrain", "The working directory.", flag_values=own)
    define_settings(own)
    for setting in fields(CycleConfig):
        own.set_default(setting.name, None)  # as the network was learned


def check(options: flags.FlagValues, words: Sequence[str]) -> None:
    """Raises if there is nothing to rebuild."""
    if not options.architecture:
        raise ConfigError("--architecture is missing; name the JSON file of a learned network")


COMMAND = Command(
    name="retrain",
    help=__doc__,
    declare=define,
    common=(
        "architecture",
        "variables",
        "model",
        "data",
        "loss",
        "metrics",
        "retrain_steps",
        "optimizer",
        "learning_rate",
        "batch_size",
        "workdir",
        "seed",
    ),
    check=check,
)
