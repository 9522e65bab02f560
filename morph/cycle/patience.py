"""Cycles that bring nothing: which was the best, whether to stop, and what is kept of it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from morph.files import together

BEST = "best"  # the folder in a working directory
KEPT = ("shrunk.json", "shrunk_variables", "architecture.json", "variables")


def best_of(values: Sequence[float]) -> int:
    """The place of the largest value; the first of equals."""
    return max(range(len(values)), key=lambda i: (values[i], -i))


def is_over(values: Sequence[float], patience: int) -> bool:
    """Whether the last `patience` values were all no better than one before; never if it is 0."""
    return bool(patience and values) and len(values) - 1 - best_of(values) >= patience


def copy_kept(source: Path, target: Path) -> None:
    """Copies what a working directory holds of one cycle; replaces what is there."""
    with together(target) as aside:
        for name in KEPT:
            copy = shutil.copytree if (source / name).is_dir() else shutil.copy2
            copy(source / name, aside / name)
