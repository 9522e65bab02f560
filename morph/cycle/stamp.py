"""Which variables an architecture was written with, and what was made from them: by checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from morph.architecture.architecture import Architecture
from morph.cycle.saved import named
from morph.errors import WorkdirError
from morph.network import Variables

STAMP = "variables_sha256"  # in the report of an architecture, and in what was made from it


def stamp_of(variables: Any) -> str:
    """SHA-256, in hex, of a tree of arrays: their names, dtypes, shapes and every bit."""
    sha256 = hashlib.sha256()
    for name, leaf in sorted(named(variables), key=lambda one: one[0]):
        array = np.ascontiguousarray(leaf)
        sha256.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        sha256.update(array.reshape(-1).view(np.uint8).data)
    return sha256.hexdigest()


def stamped(architecture: Architecture, variables: Variables) -> Architecture:
    """The architecture whose report tells which variables it is written with."""
    return replace(architecture, report={**architecture.report, STAMP: stamp_of(variables)})


def check_stamp(told: Mapping[str, Any], variables: Variables, what: str, repeat: str) -> None:
    """Raises unless something was written with, or made from, these variables.

    Args:
        told: what has the checksum: a report, a header; without one it is of a version before.
        variables: that were read.
        what: names both, for the message.
        repeat: what to do.

    Raises:
        WorkdirError: if it was written with others.
    """
    if told.get(STAMP, stamp := stamp_of(variables)) != stamp:
        raise WorkdirError(
            f"{what}: the checksum is {str(told[STAMP])[:8]}... there, and {stamp[:8]}... of the "
            f"variables; {repeat}"
        )


def check_pair(file: Path, architecture: Architecture, variables: Variables) -> None:
    """Raises unless an architecture's file was written with these variables; see `check_stamp`."""
    check_stamp(
        architecture.report,
        variables,
        f"{file} and the variables beside it are of two networks",
        "whatever wrote them was stopped between the two: repeat it",
    )
