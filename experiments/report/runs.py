"""What a run left in its working directory, finished or not."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from experiments.pictures.plots import Point
from morph.architecture.architecture import Architecture
from morph.cycle.measure import BASELINES, NAMES
from morph.cycle.stamp import STAMP
from regularizers import json_files
from regularizers.errors import MorphError
from regularizers.json_files import JsonError

logger = logging.getLogger(__name__)

CONFIG, RESULTS = "config.json", "results.json"


class RunError(MorphError, ValueError):
    """A directory that holds no run, or a broken one."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run, a sweep or a retraining.

    Attributes:
        workdir: where it is.
        config: what was asked for, flat.
        results: what came out, the command and the machine; empty while it is not finished.
        records: of training: phase, step, loss and what else was seen.
        architecture: what was learned; None if it is not there (yet), or there are several.
        shrunk: the same before the last expansion.
        compressed: what compressing it came to; empty if it was not.
        exported: likewise, exporting it.
    """

    workdir: Path
    config: Mapping[str, Any]
    results: Mapping[str, Any]
    records: tuple[Mapping[str, Any], ...]
    architecture: Architecture | None
    shrunk: Architecture | None
    compressed: Mapping[str, Any]
    exported: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What it is called beside others."""
        return self.workdir.resolve().name

    @property
    def title(self) -> str:
        """The network and the data set."""
        facts = {**self.config, **self.results}
        return f"{facts.get('seed_network', 'network')} on {facts.get('dataset', 'data')}"

    @property
    def finished(self) -> bool:
        """Whether it came to its end."""
        return bool(self.results)

    @cached_property
    def outcomes(self) -> tuple[Mapping[str, Any], ...]:
        """The networks that were measured so far; the seed first, baselines last."""
        found: Any = self.results.get("outcomes")
        for architecture in (self.architecture, self.shrunk):
            if found is None and architecture is not None:
                found = architecture.report.get("outcomes")
        order = {NAMES["seed"]: 0, **dict.fromkeys(BASELINES, 2)}
        return tuple(sorted(found or (), key=lambda outcome: order.get(outcome["name"], 1)))

    @property
    def points(self) -> tuple[Point, ...]:
        """Of a sweep: accuracy against cost."""
        return tuple(Point(**point) for point in self.results.get("points", ()))

    @property
    def measured(self) -> Mapping[str, Mapping[str, Any]]:
        """Time and memory on the machine of the run, by outcome; of those that were measured."""
        told = self.results.get("measured", {})
        names = {outcome["name"] for outcome in self.outcomes}
        return {name: facts for name, facts in told.items() if name in names and "device" in facts}

    @property
    def target(self) -> tuple[str, str]:
        """The name and the unit of what was paid for."""
        facts = {**(self.architecture.report if self.architecture else {}), **self.results}
        name = facts.get("target", self.config.get("target", "flops"))
        return name, facts.get("unit", "FLOP" if name == "flops" else "")

    @property
    def paid_for(self) -> str:
        """The target's name, for people."""
        return {"flops": "FLOPs", "here": "latency here"}.get(self.target[0], self.target[0])

    @property
    def final(self) -> Mapping[str, Any] | None:
        """The network that the run ended with."""
        ended = [o for o in self.outcomes if o["name"] not in (NAMES["seed"], *BASELINES)]
        return ended[-1] if ended else None


def read_run(workdir: str | Path) -> Run:
    """Reads what a run left.

    Raises:
        RunError: if the directory is not there, is no run's, or a file in it is broken;
        ArchitectureError: if that is an architecture.
    """
    place = Path(workdir)
    if not place.is_dir():
        raise RunError(f"{place} is not a directory; name the --workdir of a run")
    if not any((place / name).exists() for name in (CONFIG, RESULTS)):
        raise RunError(
            f"{place} holds no run: there is neither {CONFIG} nor {RESULTS} in it; name the "
            "--workdir of a run"
        )
    results = _read_object(place / RESULTS)
    architecture = _read_architecture(place / "architecture.json")
    stamp = architecture.report.get(STAMP) if architecture else None
    return Run(
        workdir=place,
        config=_read_object(place / CONFIG) or _asked_for(results),
        results=results,
        records=_read_records(place / "metrics.jsonl"),
        architecture=architecture,
        shrunk=_read_architecture(place / "shrunk.json"),
        compressed=_read_derived(place / "compressed.json", stamp),
        exported=_read_derived(place / "exported.json", stamp),
    )


def _asked_for(results: Mapping[str, Any]) -> Mapping[str, Any]:
    """The flat configuration, from the results of a command that keeps no other."""
    facts = ("seed_network", "dataset", "data_fingerprint")
    return {**results.get("config", {}), **{name: results.get(name) for name in facts}}


def _read_object(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        return {}
    try:
        return json_files.read_object(path)
    except JsonError as error:
        raise RunError(f"{path} is broken: {error}") from error


def _read_derived(path: Path, stamp: Any) -> Mapping[str, Any]:
    """Figures on what was made from the variables; nothing if those are others by now."""
    figures = _read_object(path)
    if stamp is not None and figures.get(STAMP, stamp) != stamp:
        logger.warning("%s tells of another network than architecture.json: left out", path)
        return {}
    return figures


def _read_records(path: Path) -> tuple[Mapping[str, Any], ...]:
    """The records; a last line that was cut off when a run died is left out."""
    if not path.exists():
        return ()
    try:
        return tuple(json_files.read_records(path))
    except JsonError as error:
        raise RunError(f"{path} is broken: {error}") from error


def _read_architecture(path: Path) -> Architecture | None:
    return Architecture.load(path) if path.exists() else None
