"""Scalars for TensorBoard, beside the JSON lines; and listeners side by side.

tensorboardX is optional: `pip install -e ".[tensorboard]"`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from morph.cycle.listener import Listener
from morph.errors import ConfigError

try:
    from tensorboardX import SummaryWriter
except ModuleNotFoundError as error:
    if error.name != "tensorboardX":
        raise


class TensorBoard:
    """A listener that writes scalars `PHASE/METRIC` by the step of the phase.

    Use it as a context manager. A resumed run goes on in the same folder.

    Args:
        folder: where to write.

    Raises:
        ConfigError: if tensorboardX is not installed.
    """

    def __init__(self, folder: Path) -> None:
        if "SummaryWriter" not in globals():
            raise ConfigError('--tensorboard needs tensorboardX: pip install -e ".[tensorboard]"')
        self._folder, self._phase = folder, ""
        self._writer: Any = None

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
        if self._writer is not None:
            self._writer.close()

    def seed(self, widths: Mapping[str, int]) -> None:
        """The widths at step 0; only now is the working directory the run's own."""
        self._writer = SummaryWriter(str(self._folder))
        self._write("seed network", 0, {"widths": widths})

    def phase(self, name: str, total_steps: int) -> None:
        """Names what follows."""
        self._phase = name

    def update(self, step: int, **metrics: Any) -> None:
        """Writes all metrics."""
        self._write(self._phase, step, metrics)

    def _write(self, phase: str, step: int, metrics: Mapping[str, Any]) -> None:
        for name, value in metrics.items():
            if isinstance(value, Mapping):
                for part, number in value.items():
                    self._writer.add_scalar(f"{phase}/{name}/{part}", float(number), step)
                self._writer.add_scalar(f"{phase}/channels", float(sum(value.values())), step)
            elif value is not None:
                self._writer.add_scalar(f"{phase}/{name}", float(value), step)


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
