"""Checkpoints of a run: arrays and progress together, through Orbax; and stopping for one."""

from __future__ import annotations

import json
import logging
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from morph.errors import TrainingDivergedError, WorkdirError
from morph.files import write_text
from morph.training.mesh import from_first
from regularizers.errors import InputError

logger = logging.getLogger(__name__)

# Process 0 reads and writes by itself; Orbax would have all processes take part.
_ALONE = ocp.options.MultiprocessingOptions(
    primary_host=0, active_processes={0}, barrier_sync_key_prefix="first"
)


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A checkpoint that was read and found whole.

    Attributes:
        number: its number; higher ones are newer.
        arrays: by the path of their leaf.
        progress: what was known besides, plain JSON.
    """

    number: int
    arrays: dict[str, np.ndarray]
    progress: dict[str, Any]

    def into(self, like: Any) -> Any:
        """The arrays in the structure of `like` (arrays or abstract ones).

        Raises:
            WorkdirError: if the checkpoint has other arrays.
        """
        wanted = {name: np.shape(leaf) for name, leaf in _named(like)}
        found = {name: array.shape for name, array in self.arrays.items()}
        if odd := sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name)):
            raise WorkdirError(
                f"checkpoint {self.number} is of another network or optimizer: {odd[0]} has shape "
                f"{found.get(odd[0])} there, {wanted.get(odd[0])} asked for ({len(odd)} differ)"
            )
        return jax.tree.unflatten(jax.tree.structure(like), [self.arrays[name] for name in wanted])


@dataclass(kw_only=True)
class Interval:
    """Tells when a checkpoint is due.

    Attributes:
        seconds: since the last one; None for never.
        steps: since the last one; None for never.
        last_step: of the phase in progress: what needs no other checkpoint.
    """

    seconds: float | None
    steps: int | None
    last_step: int = 0
    _last_s: float = field(default_factory=time.monotonic)

    def begin(self, step: int) -> None:
        """A phase goes on from a step that is saved, or needs no saving."""
        self.last_step, self._last_s = step, time.monotonic()

    def due(self, step: int) -> bool:
        """Whether one is due after a step."""
        late = self.seconds is not None and time.monotonic() - self._last_s >= self.seconds
        return late or (self.steps is not None and step - self.last_step >= self.steps)


class Checkpoints:
    """The checkpoints of one working directory; the newest whole one counts.

    Only process 0 reads and writes; the others get what it read, and hear of what went wrong.

    Args:
        workdir: where the run keeps its files.
        keep: how many checkpoints stay.
    """

    def __init__(self, workdir: Path, keep: int = 2) -> None:
        self._directory = (workdir / "checkpoints").absolute()
        self._seals = self._directory.with_suffix(".json")
        self._keep = keep
        self._manager: Any = None  # of process 0
        from_first(self._open)

    def save(self, arrays: Any, progress: Mapping[str, Any]) -> None:
        """Writes a new checkpoint; it is complete or not there at all.

        The arrays are copied before this returns, and written while training goes on.

        Raises:
            WorkdirError: if this one or the one before cannot be written.
            TrainingDivergedError: if parameters are not finite; nothing is written.
        """
        from_first(lambda: self._save(arrays, progress))

    def wait(self) -> None:
        """Waits until the last one is written; raises as `save` does."""
        from_first(self._wait)

    def newest(self) -> Saved | None:
        """The newest whole checkpoint, or None; a warning tells of every torn one."""
        saved: Saved | None = from_first(self._newest)
        return saved

    def close(self) -> None:
        """Ends the threads that write; `wait` tells what went wrong."""
        if self._manager is not None:
            with suppress(WorkdirError):
                self._wait()
            self._manager.close()

    def _open(self) -> None:
        self._directory.mkdir(exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._keep,
            create=False,
            enable_async_checkpointing=True,
            multiprocessing_options=_ALONE,
        )
        self._manager = ocp.CheckpointManager(
            self._directory, options=options, item_names=("arrays", "facts")
        )

    def _save(self, arrays: Any, progress: Mapping[str, Any]) -> None:
        copies = {name: np.array(leaf) for name, leaf in _named(arrays)}
        empty = {name: [a.shape, a.dtype.name] for name, a in copies.items() if not a.size}
        copies = {name: a for name, a in copies.items() if a.size}  # Orbax takes no empty ones
        crc32 = _crc32(copies, progress)
        facts = {"progress": dict(progress), "crc32": crc32, "empty": empty}
        args = ocp.args.Composite(
            arrays=ocp.args.StandardSave(copies), facts=ocp.args.JsonSave(facts)
        )
        _check_finite(copies)
        self._wait()
        with self._telling():
            self._manager.save((self._manager.latest_step() or 0) + 1, args=args, force=True)

    def _wait(self) -> None:
        with self._telling():
            self._manager.wait_until_finished()
            self._seal()

    def _seal(self) -> None:
        """Notes what the files of every checkpoint hold, so that a torn one need not be tried.

        Where one read of several fails, Orbax leaves the others to end in a loop that is closed.
        """
        known, steps = self._sealed(), self._manager.all_steps()
        if set(map(str, steps)) != set(known):
            seals = {str(n): known.get(str(n)) or _seal_of(self._directory / str(n)) for n in steps}
            write_text(self._seals, json.dumps(seals))

    def _sealed(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._seals.read_text()))
        except (OSError, ValueError):
            return {}

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Says where and what to do, once, if writing fails."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:  # Orbax raises any of them
            raise WorkdirError(
                f"cannot write a checkpoint in {self._directory}: {_first_line(error)}. The last "
                "complete one is kept: make room, and repeat the command to resume from it."
            ) from error

    def _newest(self) -> Saved | None:
        for number in sorted(self._manager.all_steps(), reverse=True):
            try:
                return self._read(number)
            except Exception as error:  # whatever a torn file makes of Orbax
                logger.warning(
                    "checkpoint %d in %s is torn (%s); taking the one before, or the beginning",
                    number,
                    self._directory,
                    _first_line(error),
                )
        return None

    def _read(self, number: int) -> Saved:
        seal = self._sealed().get(str(number))  # none if the run died before it was sealed
        if seal is not None and seal != _seal_of(self._directory / str(number)):
            raise InputError("its files are not what was written")
        args = ocp.args.Composite(arrays=ocp.args.StandardRestore(), facts=ocp.args.JsonRestore())
        found = self._manager.restore(number, args=args)
        facts = found["facts"]
        arrays = {name: np.asarray(array) for name, array in found["arrays"].items()}
        if _crc32(arrays, facts["progress"]) != facts["crc32"]:
            raise InputError("its content is not what was written")
        empty = {name: np.zeros(*shape_dtype) for name, shape_dtype in facts["empty"].items()}
        return Saved(number=number, arrays=arrays | empty, progress=facts["progress"])


def _named(tree: Any) -> list[tuple[str, Any]]:
    """The leaves of a tree with the names that they have in a checkpoint."""
    leaves = jax.tree.leaves_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in leaves]


def _seal_of(directory: Path) -> dict[str, int]:
    """A checksum of every file below a directory."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): zlib.crc32(path.read_bytes()) for path in files}


def _crc32(arrays: Mapping[str, np.ndarray], progress: Mapping[str, Any]) -> int:
    crc = zlib.crc32(json.dumps(progress, sort_keys=True).encode())
    for name in sorted(arrays):
        crc = zlib.crc32(name.encode(), crc)
        crc = zlib.crc32(arrays[name].reshape(-1).view(np.uint8).data, crc)
    return crc


def _check_finite(arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        inexact = jnp.issubdtype(array.dtype, jnp.inexact)
        if name.startswith("params") and inexact and not np.isfinite(array).all():
            raise TrainingDivergedError(
                f"{name} is not finite any more; the checkpoint before it is kept. Try a smaller "
                "learning rate, a longer warm-up, or gradient clipping."
            )


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
