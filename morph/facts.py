"""The facts that results.json tells of every run: the command, how long, what came out, on what."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from morph.files import write_text
from regularizers import json_files

PACKAGES = ("jax", "flax", "optax", "numpy")


def own_command() -> str:
    """The command line of this process, as a shell takes it."""
    return shlex.join(["python", *sys.argv])


def facts_of(command: str, seconds: float, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a run, with what it was called by, how long it took and what it ran on.

    Args:
        command: that repeats it.
        seconds: that it took.
        facts: what came out.
    """
    return {
        "command": command,
        "seconds": round(seconds, 1),
        **facts,
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def write_facts(workdir: Path, facts: Mapping[str, Any]) -> None:
    """Writes results.json."""
    write_text(workdir / "results.json", json_files.text(facts, indent=2))


def lines_of(records: Iterable[Mapping[str, Any]]) -> str:
    """Records of training, one a line, as metrics.jsonl has them."""
    return "".join(map(json_files.text, records))
