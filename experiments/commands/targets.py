"""One seed network, shrunk for several costs: what each of the networks costs in all of them.

    morph targets --seed_network=towers --dataset=fashion_mnist

The seed network is trained once. For every target, a network is then learned from it that costs
--budget of the seed in that target. The table gives the cost of each network in all targets, and
its time on this machine (all are timed in turn, so that a busy moment affects them alike). --output
writes the same as JSON. Networks that are in the working directory are not learned again, so that
you can add targets, or repeat the timing.
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
    flags.DEFINE_float("timing_seconds", 60.0, "How many seconds to time.", flag_values=own)
    flags.DEFINE_integer("test_examples", 2000, "How many examples to test on.", 1, flag_values=own)
    flags.DEFINE_string("workdir", "runs/targets", "The working directory.", flag_values=own)
    flags.DEFINE_string("output", None, "Write the figures as JSON here.", flag_values=own)


def check(options: flags.FlagValues, words: Sequence[str]) -> None:
    """Raises for an unknown cost."""
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
