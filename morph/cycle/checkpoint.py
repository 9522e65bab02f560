"""Checkpoints of a run: when one is due, how they are kept, and which one counts."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from morph.cycle.saved import SUFFIX, Saved, TornError, named, parts_of, read
from morph.cycle.shards import SHARDS, Shards, all_see, is_divided, write
from morph.errors import TrainingDivergedError, WorkdirError
from morph.files import write_parts
from morph.training.mesh import from_first, is_first
from regularizers.host import on_host
from regularizers.messages import reason

logger = logging.getLogger(__name__)


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

    Only process 0 reads and writes; the others get what it read, and hear of what went wrong. But
    of arrays that no process holds whole each writes and reads its own parts, if all see the
    directory. Older ones go once enough newer ones are whole; one that was found torn is never
    deleted.

    Args:
        workdir: where the run keeps its files.
        keep: how many whole checkpoints stay.
    """

    def __init__(self, workdir: Path, keep: int = 2) -> None:
        self._directory = (workdir / "checkpoints").absolute()
        self._keep = keep
        self._last = 0  # number
        self._whole: list[int] = []  # that this process wrote or read
        self._torn: set[int] = set()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._place: Path = from_first(self._open)  # of process 0

    @property
    def workdir(self) -> Path:
        """Where process 0 keeps them, in all processes."""
        return self._place.parent

    def save(self, arrays: Any, progress: Mapping[str, Any]) -> None:
        """Writes a new checkpoint; it is complete or not there at all.

        The arrays are copied before this returns, and written while training goes on; those that no
        process holds whole are written before it returns.

        Raises:
            WorkdirError: if this one or the one before cannot be written.
            TrainingDivergedError: if parameters are not finite; nothing is written.
        """
        if is_divided(arrays) and all_see(self._place):
            self._save_shards(arrays, progress)
            return
        copies = {}
        for name, leaf in named(arrays):  # one by one: what is divided is whole nowhere else
            whole = leaf if jax.process_count() == 1 else on_host(leaf)
            if is_first():
                copies[name] = np.array(whole)
        from_first(lambda: self._save(copies, progress))

    def wait(self) -> None:
        """Waits until the last one is written; raises as `save` does."""
        from_first(self._wait)

    def newest(self) -> Saved | None:
        """The newest whole checkpoint; None if there are none at all.

        A warning tells of every one that is proven to be torn. Whatever else keeps one from being
        read is an error, and nothing is touched: it may be the newest still.

        Raises:
            WorkdirError: if one cannot be read, or all are torn.
        """
        below = math.inf
        while isinstance(found := from_first(partial(self._newest, below)), Shards):
            try:
                saved = found.read()
            except TornError as error:
                from_first(partial(self._tear, found.number, error))
                below = found.number
            except WorkdirError as error:
                raise self._unreadable(found.number, found.folder, error) from error
            else:
                self._whole = [found.number]
                return saved
        newest: Saved | None = found
        return newest

    def close(self) -> None:
        """Ends the thread that writes; `wait` tells what went wrong."""
        with suppress(WorkdirError):
            self._wait()
        self._writer.shutdown()

    def _open(self) -> Path:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkdirError(
                f"cannot keep checkpoints in {self._directory}: {reason(error)}"
            ) from error
        self._last = max(_found(self._directory), default=0)
        return self._directory

    def _save_shards(self, arrays: Any, progress: Mapping[str, Any]) -> None:
        """Writes a new checkpoint of all processes, which is complete when this returns."""
        number: int = from_first(self._next)
        folder = self._place / f"{number}{SHARDS}"
        write(folder, number, dict(named(arrays)), progress, self._check_params)
        from_first(partial(self._keep_newest, number))

    def _next(self) -> int:
        """The number of the next checkpoint, once the one before is written."""
        self._wait()
        self._last += 1
        return self._last

    def _save(self, arrays: Mapping[str, np.ndarray], progress: Mapping[str, Any]) -> None:
        self._wait()
        inexact = (n for n, a in arrays.items() if jnp.issubdtype(a.dtype, jnp.inexact))
        self._check_params([name for name in inexact if not np.isfinite(arrays[name]).all()])
        self._writing = self._writer.submit(self._write, self._next(), arrays, dict(progress))

    def _write(
        self, number: int, arrays: Mapping[str, np.ndarray], progress: Mapping[str, Any]
    ) -> None:
        write_parts(self._directory / f"{number}{SUFFIX}", parts_of(number, arrays, progress))
        self._keep_newest(number)

    def _keep_newest(self, number: int) -> None:
        """A checkpoint is whole: of older ones there are enough."""
        self._whole.append(number)
        if len(self._whole) < self._keep:
            return
        for old, path in _found(self._directory).items():
            if old < self._whole[-self._keep] and old not in self._torn:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        try:
            if writing is not None:
                writing.result()
        except OSError as error:
            raise WorkdirError(
                f"cannot write a checkpoint in {self._directory}: {_first_line(error)}. "
                f"{self._kept()}: make room, and repeat the command to "
                + ("resume from it." if self._whole else "begin again.")
            ) from error

    def _kept(self) -> str:
        """What is left where the next one cannot be written."""
        if self._whole:
            return f"Checkpoint {self._whole[-1]}, the last complete one, is kept"
        return "There is none before it"

    def _newest(self, below: float) -> Saved | Shards | None:
        """The newest checkpoint under a number; one of all processes is found, and not read."""
        found = _found(self._directory)
        for number, path in sorted(found.items(), reverse=True):
            if number >= below:
                continue
            try:
                saved = Shards.found(path) if path.suffix == SHARDS else read(path)
            except TornError as error:
                self._tear(number, error)
            except (OSError, WorkdirError, MemoryError) as error:
                raise self._unreadable(number, path, error) from error
            else:
                self._whole = [number]
                return saved
        if found:
            raise WorkdirError(
                f"all checkpoints in {self._directory} are damaged ({', '.join(map(str, found))}); "
                "nothing was changed. Put back an intact copy, or choose another --workdir "
                "to begin again."
            )
        return None

    def _tear(self, number: int, error: TornError) -> None:
        """A checkpoint was proven to be damaged."""
        self._torn.add(number)
        logger.warning("checkpoint %d in %s is damaged (%s)", number, self._directory, error)

    def _unreadable(self, number: int, path: Path, error: BaseException) -> WorkdirError:
        return WorkdirError(
            f"cannot read checkpoint {number} in {self._place}: {_first_line(error)}. "
            "Nothing was changed: repeat the command once it can be read, or move "
            f"{path.name} away to resume from the one before."
        )

    def _check_params(self, odd: Sequence[str]) -> None:
        """Raises if a parameter is among arrays that are not finite."""
        for name in odd:
            if name.startswith("params"):
                raise TrainingDivergedError(
                    f"{name} is not finite any more. {self._kept()}. Try a smaller learning rate, "
                    "a longer warm-up, or gradient clipping."
                )


def _found(directory: Path) -> dict[int, Path]:
    """All checkpoints by number; those of versions before are folders."""
    try:
        paths = [path for path in directory.iterdir() if path.suffix == SUFFIX or path.is_dir()]
    except OSError as error:
        raise WorkdirError(
            f"cannot list the checkpoints in {directory}: {reason(error)}"
        ) from error
    return {int(path.stem): path for path in paths if path.stem.isdecimal()}


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
