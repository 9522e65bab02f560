"""What a run knows so far, as data that survives it: outcomes, progress, records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from morph.architecture.architecture import Architecture
from morph.files import write_text


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


def progress_json(phase: int, step: int, strength: float, carried: Carried) -> dict[str, Any]:
    """Where a run is, as plain JSON data."""
    return {
        "phase": phase,
        "step": step,
        "strength": strength,
        "carried": {
            "architecture": carried.architecture.to_json(),
            "outcomes": [asdict(outcome) for outcome in carried.outcomes],
            "steps": carried.steps,
            "converged": carried.converged,
        },
    }


def carried_from_json(data: Mapping[str, Any]) -> Carried:
    """What `progress_json` wrote under `carried`."""
    return Carried(
        architecture=Architecture.from_json(data["architecture"]),
        outcomes=tuple(Outcome(**outcome) for outcome in data["outcomes"]),
        steps=data["steps"],
        converged=data["converged"],
    )


def drop_records(path: Path, phase: int, step: int) -> None:
    """Forgets the records that a resumed run will write again."""
    if not path.exists():
        return
    lines = path.read_text().splitlines()
    kept = []
    for line in lines:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue  # cut off when the run died
        if (record["phase_index"], record["step"]) <= (phase, step):
            kept.append(line)
    write_text(path, "".join(line + "\n" for line in kept))
