"""Checkpoints of a run: when one is due, how they are kept, and which one counts."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from morph.cycle.saved import SUFFIX, Saved, TornError, named, parts_of, read
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

    Only process 0 reads and writes; the others get what it read, and hear of what went wrong. Older
    ones go once enough newer ones are whole; one that was found torn is never deleted.

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
        from_first(self._open)

    def save(self, arrays: Any, progress: Mapping[str, Any]) -> None:
        """Writes a new checkpoint; it is complete or not there at all.

        The arrays are copied before this returns, and written while training goes on.

        Raises:
            WorkdirError: if this one or the one before cannot be written.
            TrainingDivergedError: if parameters are not finite; nothing is written.
        """
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
        saved: Saved | None = from_first(self._newest)
        return saved

    def close(self) -> None:
        """Ends the thread that writes; `wait` tells what went wrong."""
        with suppress(WorkdirError):
            self._wait()
        self._writer.shutdown()

    def _open(self) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkdirError(
                f"cannot keep checkpoints in {self._directory}: {reason(error)}"
            ) from error
        self._last = max(_found(self._directory), default=0)

    def _save(self, arrays: Mapping[str, np.ndarray], progress: Mapping[str, Any]) -> None:
        self._wait()
        self._check_finite(arrays)
        self._last += 1
        self._writing = self._writer.submit(self._write, self._last, arrays, dict(progress))

    def _write(
        self, number: int, arrays: Mapping[str, np.ndarray], progress: Mapping[str, Any]
    ) -> None:
        write_parts(self._directory / f"{number}{SUFFIX}", parts_of(number, arrays, progress))
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

    def _newest(self) -> Saved | None:
        found = _found(self._directory)
        for number, path in sorted(found.items(), reverse=True):
            try:
                saved = read(path)
            except TornError as error:
                self._torn.add(number)
                logger.warning(
                    "checkpoint %d in %s is damaged (%s)", number, self._directory, error
                )
            except (OSError, WorkdirError, MemoryError) as error:
                raise WorkdirError(
                    f"cannot read checkpoint {number} in {self._directory}: {_first_line(error)}. "
                    "Nothing was changed: repeat the command once it can be read, or move "
                    f"{path.name} away to resume from the one before."
                ) from error
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

    def _check_finite(self, arrays: Mapping[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            inexact = jnp.issubdtype(array.dtype, jnp.inexact)
            if name.startswith("params") and inexact and not np.isfinite(array).all():
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
