"""Who hears how a run goes."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self


class Listener(Protocol):
    """Hears how a run goes; `experiments.console.display.Display` is one."""

    def seed(self, widths: Mapping[str, int]) -> None:
        """The widths of the seed network's groups, once."""

    def phase(self, name: str, total_steps: int) -> None:
        """A phase begins."""

    def update(self, step: int, **metrics: Any) -> None:
        """A step is done."""


class Silence:
    """A listener that does nothing."""

    def seed(self, widths: Mapping[str, int]) -> None:
        """Nothing."""

    def phase(self, name: str, total_steps: int) -> None:
        """Nothing."""

    def update(self, step: int, **metrics: Any) -> None:
        """Nothing."""


@dataclass(kw_only=True)
class Progress:
    """Tells on standard error how it goes: a line that moves on a terminal, else one per phase.

    It is a context manager, which ends the last line. Nothing that happens to the stream ends a
    run.

    Attributes:
        interval_s: seconds between two drawings on a terminal.
        clock: returns the time in seconds.
        last: what is said once all is done.
    """

    interval_s: float = 0.1
    clock: Callable[[], float] = time.monotonic
    last: str = ""
    _name: str = field(default="", init=False)
    _steps: tuple[int, int] = field(default=(0, 0), init=False)  # done, and in all
    _numbers: dict[str, Any] = field(default_factory=dict, init=False)
    _began_s: float = field(default=0.0, init=False)
    _drawn_s: float = field(default=0.0, init=False)

    def __enter__(self) -> Self:
        """Ready to listen."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """The last line, with its end."""
        self._end()
        with contextlib.suppress(OSError, ValueError):
            if self.last and error is None:
                print(self.last, file=sys.stderr, flush=True)

    def seed(self, widths: Mapping[str, int]) -> None:
        """Nothing: widths come with the result."""

    def phase(self, name: str, total_steps: int) -> None:
        """The line of the phase before is done; another begins."""
        self._end()
        self._name, self._steps, self._numbers = name, (0, total_steps), {}
        self._began_s = self.clock()
        self._draw()

    def update(self, step: int, **metrics: Any) -> None:
        """The newest numbers; widths are left out."""
        self._steps = step, self._steps[1]
        told = {name: value for name, value in metrics.items() if not isinstance(value, Mapping)}
        self._numbers |= told
        if self.clock() >= self._drawn_s + self.interval_s:
            self._draw()

    def _line(self) -> str:
        done, total = self._steps
        numbers = [f"{name} {float(value):.4g}" for name, value in self._numbers.items()]
        steps = f"{self._name} {done}/{total}" if total else self._name
        parts = [steps, *numbers, f"{self.clock() - self._began_s:.0f} s"]
        return ", ".join(parts)

    def _draw(self) -> None:
        self._drawn_s = self.clock()
        with contextlib.suppress(OSError, ValueError):  # ValueError: it was closed
            if self._name and sys.stderr.isatty():
                print(f"\r\x1b[2K{self._line()}", end="", file=sys.stderr, flush=True)

    def _end(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self._name:
                start = "\r\x1b[2K" if sys.stderr.isatty() else ""
                print(f"{start}{self._line()}", file=sys.stderr, flush=True)
        self._name = ""
