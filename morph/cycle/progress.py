"""What a run knows so far, as data that survives it: outcomes, progress, records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from morph.architecture.architecture import Architecture
from morph.errors import WorkdirError
from morph.files import write_text
from regularizers import json_files
from regularizers.json_files import JsonError
from regularizers.messages import reason


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One network of a run, measured.

    Attributes:
        name: `seed`, `shrunk`, `expanded and retrained`, `uniform`.
        accuracy: on the test set; None if it was not asked for.
        steps: training steps that its weights have seen.
        logit_difference: for a shrunk network the largest difference between its outputs (logits,
            if it gives them) and the dense network's on the test set, over the largest.
        same_predictions: whether both predict the same class for every example; None where
            outputs are no classes.
        metrics: all that were asked for, on the test set.
    """

    name: str
    accuracy: float | None
    cost: float
    flops: float
    parameters: int
    widths: dict[str, int]
    steps: int
    width_multiplier: float | None = None
    logit_difference: float | None = None
    same_predictions: bool | None = None
    metrics: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Outcome:
        """The outcome that JSON tells of; what a version before did not tell is as by default.

        Raises:
            WorkdirError: if it has what only a newer version knows, or lacks what every one tells.
        """
        if unknown := sorted({*told} - {one.name for one in fields(cls)}):
            raise WorkdirError(
                f"this version does not know the {', '.join(unknown)} of a network's outcome; a "
                "newer one wrote it: install that, or choose another --workdir"
            )
        try:
            return cls(**told)
        except TypeError as error:
            raise WorkdirError(f"a network's outcome is incomplete: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Carried:
    """What one phase hands to the next.

    Attributes:
        architecture: the network's, relative to the seed network.
        outcomes: what was measured so far.
        steps: training steps that the present weights have seen.
        converged: the last cycles brought nothing: no phase is to follow.
    """

    architecture: Architecture
    outcomes: tuple[Outcome, ...] = ()
    steps: int = 0
    converged: bool = False


def progress_json(phase: int, step: int, carried: Carried) -> dict[str, Any]:
    """Where a run is, as plain JSON data."""
    return {
        "phase": phase,
        "step": step,
        "carried": {
            "architecture": carried.architecture.to_json(),
            "outcomes": [asdict(outcome) for outcome in carried.outcomes],
            "steps": carried.steps,
            "converged": carried.converged,
        },
    }


def read_progress(told: Mapping[str, Any]) -> tuple[int, int, Carried]:
    """What `progress_json` told: the phase, the step, and what is carried.

    Raises:
        WorkdirError: if another version told it.
    """
    try:
        carried = told["carried"]
        return (
            told["phase"],
            told["step"],
            Carried(
                architecture=Architecture.from_json(carried["architecture"]),
                outcomes=tuple(map(Outcome.of, carried["outcomes"])),
                steps=carried["steps"],
                converged=carried["converged"],
            ),
        )
    except (KeyError, TypeError) as error:
        raise WorkdirError(
            f"the checkpoint does not tell where the run was ({error}): it is of another version; "
            "resume with that, or choose another --workdir"
        ) from error


def drop_records(path: Path, phase: int, step: int) -> None:
    """Forgets the records that a resumed run will write again, and what broke off among them.

    Raises:
        WorkdirError: if a line before those is no record; nothing is touched.
    """
    kept: list[str] = []
    broken = 0  # the number of a line
    try:
        text = path.read_text(errors="replace") if path.exists() else ""
    except OSError as error:
        raise WorkdirError(f"cannot read {path}: {reason(error)}; nothing was changed") from error
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            record = json_files.parse_object(line)
            later = (record["phase_index"], record["step"]) > (phase, step)
        except (JsonError, KeyError, TypeError):
            broken = broken or number
            continue
        if later:
            continue
        if broken:
            raise WorkdirError(
                f"line {broken} of {path} is not a record, but a valid one follows; remove it, "
                "and repeat the command"
            )
        kept.append(line)
    if (whole := "".join(line + "\n" for line in kept)) != text:
        write_text(path, whole)
