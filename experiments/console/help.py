"""What `--help` and `--helpfull` print: the flags that most runs need, or all, in groups."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from absl import flags

# Flags that no group names come last.
GROUPS: Mapping[str, Sequence[str]] = {
    "Network and data": (
        "seed_network", "model", "train_kwarg", "width", "input", "kwargs", "start",
        "architecture", "variables", "dataset", "data", "data_dir", "workdir",
    ),
    "What to learn": (
        "target", "targets", "budget", "budgets", "only", "shrink_to", "cycles",
        "patience", "expand", "final", "baselines", "blocks", "min_width", "floors", "round_to",
    ),
    "How channels are chosen": ("penalty", "strengths", "gate_mode", "settle"),
    "Training": (
        "seed_steps", "shrink_steps", "retrain_steps", "batch_size", "optimizer", "learning_rate",
        "shrink_learning_rate", "schedule", "warmup_steps", "weight_decay", "clip_norm",
        "ema_decay", "precision", "loss", "label_smoothing", "metrics", "augment", "mixup", "seed",
        "seeds", "how", "jobs", "slurm",
        "examples", "by", "prune_steps", "text_of",
    ),
    "Distillation": ("distill", "distill_by", "distill_temperature"),
    "Tensor networks": ("tensorize", "tensorize_budget", "tensorize_steps"),
    "Compression": (
        "compress", "compress_steps", "compress_learning_rate", "compress_optimizer",
        "compress_batch_size", "compress_seed", "sparsity", "distribution", "clusters",
        "clustering", "word_length", "threshold", "keep",
    ),
    "What is written": (
        "export", "compressed", "output", "cost", "plot", "picture", "json", "tensorboard",
        "checkpoint_seconds", "checkpoint_steps", "timing_seconds", "test_examples", "fresh",
    ),
    "Many devices": ("mesh", "shard", "coordinator", "process_id", "num_processes"),
}  # fmt: skip
OTHERS = "Others"
STATUS = (
    "Exit status: 0 for success; 2 for an error that you can correct, explained in one line; 130 "
    "after Ctrl-C; 1 for a bug, with its traceback."
)
FILES = "--flagfile=FILE reads flags from a file, one per line."
_WIDEST = 100  # columns


def short_help(
    name: str, about: str, options: flags.FlagValues, common: Sequence[str]
) -> Iterator[str]:
    """The lines of `--help`.

    Args:
        name: of the command.
        about: what it does, with examples.
        options: its flags.
        common: those that most runs need, in order; all others are only counted.
    """
    yield about.strip()
    yield ""
    if common:
        everything = len(shown(options))
        more = f"; morph {name} --helpfull lists all {everything}" * (everything > len(common))
        yield f"Flags that are needed most{more}:"
        yield ""
        yield from lines_of(options, common)
    yield from ending()


def full_help(about: str, options: flags.FlagValues) -> Iterator[str]:
    """The lines of `--helpfull`."""
    yield about.strip()
    left = shown(options)
    for title, names in (*GROUPS.items(), (OTHERS, tuple(left))):
        own = [name for name in names if name in left]
        if own:
            yield ""
            yield f"{title}:"
            yield ""
            yield from lines_of(options, own)
        left = [name for name in left if name not in own]
    yield from ending()


def ending() -> Iterator[str]:
    """What is the same for all commands."""
    yield ""
    yield from filled(f"{FILES} {STATUS}", "")


def shown(options: flags.FlagValues) -> list[str]:
    """The names of the flags, without those of the help."""
    return [name for name in options if name not in ("help", "helpfull", "?")]


def lines_of(options: flags.FlagValues, names: Iterable[str]) -> Iterator[str]:
    """Two lines or more for every flag: its name and default, and what it means."""
    for name in names:
        flag: flags.Flag[Any] = options[name]
        default = "" if flag.default in (None, "", []) else f"  (default {default_of(flag)})"
        yield f"  --{'[no]' if flag.boolean else ''}{name}{default}"
        yield from filled(str(flag.help), "      ")


def default_of(flag: flags.Flag[Any]) -> str:
    """The default, as it would be typed."""
    if isinstance(flag.default, list):
        return ",".join(map(str, flag.default))
    return str(flag.default).lower() if flag.boolean else str(flag.default)


def filled(text: str, indent: str) -> list[str]:
    """A text in lines that fit the terminal; names are never broken."""
    width = min(_WIDEST, shutil.get_terminal_size().columns)
    return textwrap.wrap(
        text,
        max(width, 40),
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
