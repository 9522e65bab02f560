"""Scalars for TensorBoard, beside the JSON lines; and listeners side by side.

tensorboardX is optional: `pip install -e ".[tensorboard]"`.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from morph.cycle.listener import Listener
from morph.errors import ConfigError
from morph.untrusted import printable

try:
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import RecordWriter
    from tensorboardX.summary import scalar
except ModuleNotFoundError as error:
    if error.name != "tensorboardX":
        raise

_FLUSH_S = 10.0


class TensorBoard:
    """A listener that writes scalars `PHASE/METRIC` by the step of the phase.

    Use it as a context manager. A resumed run goes on in the same folder. If nothing can be written
    any more, that is told once, and the run goes on without. (tensorboardX's own writer has a
    thread that would end there, and then everything would wait for it.)

    Args:
        folder: where to write.

    Raises:
        ConfigError: if tensorboardX is not installed.
    """

    def __init__(self, folder: Path) -> None:
        if "RecordWriter" not in globals():
            raise ConfigError('--tensorboard needs tensorboardX: pip install -e ".[tensorboard]"')
        self._folder, self._phase = folder, ""
        self._writer: Any = None
        self._flushed_s = 0.0

    def __enter__(self) -> Self:
        """Nothing more."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Writes what is left."""
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.close()
            except OSError as failure:
                _tell(failure)

    def seed(self, widths: Mapping[str, int]) -> None:
        """The widths at step 0; only now is the working directory the run's own."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
            self._writer = RecordWriter(str(self._folder / name))
        except OSError as error:
            _tell(error)
        self._put(file_version="brain.Event:2")
        self._write("seed network", 0, {"widths": widths})

    def phase(self, name: str, total_steps: int) -> None:
        """Names what follows."""
        self._phase = name

    def update(self, step: int, **metrics: Any) -> None:
        """Writes all metrics."""
        self._write(self._phase, step, metrics)

    def _write(self, phase: str, step: int, metrics: Mapping[str, Any]) -> None:
        for tag, number in _numbers(phase, metrics):
            self._put(step=step, summary=scalar(tag, number))

    def _put(self, **event: Any) -> None:
        """Writes an event, if that is still possible."""
        if self._writer is None:
            return
        now_s = time.time()
        try:
            self._writer.write(Event(wall_time=now_s, **event).SerializeToString())
            if now_s - self._flushed_s > _FLUSH_S:
                self._writer.flush()
                self._flushed_s = now_s
        except OSError as error:
            writer, self._writer = self._writer, None
            with contextlib.suppress(OSError):
                writer.close()
            _tell(error)


def _tell(error: OSError) -> None:
    print(f"no more scalars for TensorBoard: {printable(error)}", file=sys.stderr)


def _numbers(phase: str, metrics: Mapping[str, Any]) -> list[tuple[str, float]]:
    """All numbers in some metrics, by tag."""
    found = []
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            found += [(f"{phase}/{name}/{part}", float(one)) for part, one in value.items()]
            found.append((f"{phase}/channels", float(sum(value.values()))))
        elif value is not None:
            found.append((f"{phase}/{name}", float(value)))
    return found


class Listeners:
    """Several listeners as one.

    Args:
        each: told in this order.
    """

    def __init__(self, each: Sequence[Listener]) -> None:
        self._each = each

    def seed(self, widths: Mapping[str, int]) -> None:
        """Tells all."""
        for listener in self._each:
            listener.seed(widths)

    def phase(self, name: str, total_steps: int) -> None:
        """Tells all."""
        for listener in self._each:
            listener.phase(name, total_steps)

    def update(self, step: int, **metrics: Any) -> None:
        """Tells all."""
        for listener in self._each:
            listener.update(step, **metrics)
