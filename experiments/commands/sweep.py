"""Accuracy against cost: one seed network, several budgets, and the uniform width multiplier.

    morph sweep --seed_network=mlp --dataset=digits --budgets=1,0.75,0.5,0.25,0.1

trains the seed network once for every random seed in --seeds; shrinks it to every budget; trains
the learned widths from scratch; and trains the seed with one uniform width multiplier at the same
cost. All three are trained for the same number of steps, unless --retrain_steps says otherwise.
--workdir then holds results.json, tradeoff.png and report.html, and in seed-S/budget-B the
architecture and the variables of each network, which `morph retrain` takes.

    --how=vmap        all budgets and seeds at once in one compiled program (the default); networks
                      are retrained as the seed network with channels held at zero
    --how=turn        one after the other; networks are retrained at the learned widths
    --how=processes   one process for every budget, --jobs at a time
    --how=local       one job of submitit for every budget, --jobs at a time; a job that fails is
                      one row that says why, and the same command tries it again
    --how=slurm       likewise on a cluster, with what --slurm asks for; from a login node, whose
                      file system the nodes share

Networks that are in the working directory are not trained again: after a stop, the same command
goes on; if you add budgets or seeds, only those are trained. Several hosts may share a working
directory:

    host 1: morph sweep ... --workdir=/shared/sweep --only=0.5
    host 2: morph sweep ... --workdir=/shared/sweep --only=0.25
    later:  morph sweep ... --workdir=/shared/sweep      # collects, and draws
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments.console.declared import Command
from experiments.console.flags import SUBJECT, define_settings, define_start, define_subject_flags
from experiments.jobs import parameters_of
from morph.errors import ConfigError

HOWS = ("vmap", "turn", "processes", "local", "slurm")


def define(own: flags.FlagValues) -> None:
    """Its flags."""
    define_subject_flags(own, seed_network="mlp", dataset="digits", width=1.0)
    define_start(own)
    flags.DEFINE_string("workdir", None, "The working directory.", flag_values=own)
    flags.DEFINE_list(
        "budgets",
        ["1", "0.75", "0.5", "0.25", "0.1"],
        "Ratios to the seed's cost.",
        flag_values=own,
    )
    flags.DEFINE_list(
        "seeds", ["0"], "Random seeds; results are their mean and spread.", flag_values=own
    )
    flags.DEFINE_list("only", None, "Train only these of the budgets now.", flag_values=own)
    flags.DEFINE_enum(
        "how", "vmap", HOWS, "Train at once, in turn, or in processes.", flag_values=own
    )
    flags.DEFINE_integer("jobs", 2, "How many processes run at a time.", 1, flag_values=own)
    flags.DEFINE_string(
        "slurm",
        "",
        "What --how=slurm asks for: partition=gpu,time=60,gpus_per_node=1; time in minutes.",
        flag_values=own,
    )
    define_settings(own, penalty="group_lasso", blocks=False)
    own.set_default("retrain_steps", None)  # seed_steps + shrink_steps


def check(options: flags.FlagValues, words: Sequence[str]) -> None:
    """Raises for a list of numbers that is none."""
    budgets = numbers("budgets", options.budgets, float)
    numbers("seeds", options.seeds, int)
    parameters_of(options.slurm)
    only = numbers("only", options.only, float) if options.only else budgets
    if odd := [budget for budget in only if budget not in budgets]:
        listed = ", ".join(map(str, sorted(budgets, reverse=True)))
        raise ConfigError(f"--only={odd[0]} is none of the budgets ({listed})")


def numbers(flag: str, texts: Sequence[str], kind: type[float] | type[int]) -> list[Any]:
    """A list of numbers as typed, each once.

    Raises:
        ConfigError: naming the flag and what is no number.
    """
    found = []
    for text in texts:
        try:
            found.append(kind(text))
        except ValueError:
            raise ConfigError(f"--{flag}: {text!r} is no {kind.__name__}") from None
    if not found:
        raise ConfigError(f"--{flag} is empty; give at least one number")
    return list(dict.fromkeys(found))


COMMAND = Command(
    name="sweep",
    help=__doc__,
    declare=define,
    common=(
        *SUBJECT,
        "target",
        "budgets",
        "seeds",
        "penalty",
        "how",
        "jobs",
        "seed_steps",
        "shrink_steps",
        "retrain_steps",
        "optimizer",
        "learning_rate",
        "batch_size",
        "workdir",
    ),
    check=check,
)
