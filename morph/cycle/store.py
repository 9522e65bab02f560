"""What a run writes and reads again: networks with their report, records, checkpoints' company."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from morph.architecture.architecture import Architecture
from morph.budget.prices import Prices
from morph.cycle.checkpoint import Checkpoints
from morph.cycle.patience import BEST, copy_kept
from morph.cycle.progress import Outcome, drop_records
from morph.cycle.stamp import stamped
from morph.cycle.workdir import load_variables, save_variables
from morph.files import append_text, sync, together
from morph.network import Variables
from morph.training.mesh import from_first, local
from regularizers import json_files


@dataclass(frozen=True, kw_only=True)
class Store:
    """The working directory of a run.

    Attributes:
        workdir: where it is.
        prices: of the seed network's architectures.
        facts: what the report of every architecture tells, in order; `cost` and `outcomes` are
            filled in.
    """

    workdir: Path
    prices: Prices
    facts: Mapping[str, Any]

    def shrunk(
        self, architecture: Architecture, variables: Variables, outcomes: Sequence[Outcome]
    ) -> None:
        """Writes a network as it was shrunk."""
        variables = local(variables)
        reported = stamped(self._reported(architecture, outcomes), variables)
        with together(self.workdir) as aside:
            reported.save(aside / "shrunk.json")
            save_variables(aside / "shrunk_variables", variables)

    def final(
        self,
        architecture: Architecture,
        variables: Variables,
        outcomes: Sequence[Outcome],
        **more: Any,
    ) -> Architecture:
        """Writes what a run, or one of its cycles, ends with; the architecture with its report."""
        variables = local(variables)
        reported = stamped(self._reported(architecture, outcomes, **more), variables)
        with together(self.workdir) as aside:
            reported.save(aside / "architecture.json")
            save_variables(aside / "variables", variables)
        return reported

    def teacher(self, variables: Variables) -> None:
        """Writes the trained seed's variables."""
        save_variables(self.workdir / "seed_variables", local(variables))

    def architecture(self, name: str) -> Architecture:
        """An architecture that process 0 wrote."""
        path = self.workdir / name
        return Architecture.from_json(from_first(lambda: Architecture.load(path).to_json()))

    def variables(self, name: str, like: Any = None) -> Variables:
        """Variables that process 0 wrote."""
        path = self.workdir / name
        found = from_first(lambda: jax.device_get(load_variables(path, like)))
        variables: Variables = jax.tree.map(jnp.asarray, found)
        return variables

    def keep_best(self) -> None:
        """Keeps what is there of one cycle, as the best so far."""
        from_first(partial(copy_kept, self.workdir, self.workdir / BEST))

    def take_best(self) -> None:
        """Brings the best cycle back."""
        from_first(partial(copy_kept, self.workdir / BEST, self.workdir))

    def record(self, record: Mapping[str, Any]) -> None:
        """Writes a line of metrics."""
        append_text(self._records, json_files.text(record))

    def drop_records(self, number: int, step: int) -> None:
        """Forgets the records that a resumed run will write again."""
        drop_records(self._records, number, step)

    def checkpoint(
        self, checkpoints: Checkpoints, arrays: Any, progress: Mapping[str, Any]
    ) -> None:
        """Leaves a checkpoint, and before it the records that it follows."""
        if self._records.exists():
            sync(self._records)
        checkpoints.save(arrays, progress)

    def _reported(
        self, architecture: Architecture, outcomes: Sequence[Outcome], **more: Any
    ) -> Architecture:
        report = {
            **self.facts,
            "cost": self.prices.at(architecture)["cost"],
            "outcomes": [asdict(outcome) for outcome in outcomes],
            **more,
        }
        return replace(architecture, report=report)

    @property
    def _records(self) -> Path:
        return self.workdir / "metrics.jsonl"
