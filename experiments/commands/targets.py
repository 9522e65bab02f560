"""One seed network, shrunk for several costs: what each is worth in all of them.

    morph targets --seed_network=towers --dataset=fashion_mnist

Trains the seed once. From it, for every target, a network is learned that costs BUDGET of the
seed's in that target. The table prices each of them in all targets, and times them on this machine,
interleaved. With `--output` the same is written as JSON. What is in WORKDIR already is not learned
again, so that more targets can be added, and the timing repeated.
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from experiments.console.declared import Command
from experiments.console.flags import SUBJECT, define_settings, define_start, define_subject_flags
from morph.cycle.config import check_target


def define(own: flags.FlagValues) -> None:
    """Its flags."""
    define_subject_flags(own, seed_network="towers", dataset="fashion_mnist", width=1.0)
    define_start(own)
    flags.DEFINE_list(
        "targets",
        ["flops", "size", "edge_tpu", "here"],
        "The costs to learn a network for; `here` is the latency on this machine.",
        flag_values=own,
    )
    define_settings(
        own,
        seed_steps=150,
        shrink_steps=200,
        batch_size=32,
        learning_rate=0.05,
        penalty="group_lasso",
        blocks=False,
    )
    flags.DEFINE_float("timing_seconds", 60.0, "How long to time.", flag_values=own)
    flags.DEFINE_integer("test_examples", 2000, "How many to test on.", 1, flag_values=own)
    flags.DEFINE_string("workdir", "runs/targets", "For what was learned.", flag_values=own)
    flags.DEFINE_string("output", None, "Write the figures as JSON here.", flag_values=own)


def check(options: flags.FlagValues, words: Sequence[str]) -> None:
    """Raises for a cost that there is none of."""
    for target in options.targets:
        check_target(target)


COMMAND = Command(
    name="targets",
    help=__doc__,
    declare=define,
    common=(
        *SUBJECT,
        "targets",
        "budget",
        "penalty",
        "seed_steps",
        "shrink_steps",
        "optimizer",
        "learning_rate",
        "batch_size",
        "timing_seconds",
        "workdir",
        "output",
    ),
    check=check,
)
