"""What a terminal shows while there is nothing to count: what is done, and for how long."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from experiments.console.terminal import Clean

_PER_SECOND = 2.0  # drawings


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """One line; a new drawing shows the time that has passed.

    Attributes:
        name: of the phase.
        what: is done.
        since_s: when it began.
        clock: returns the time in seconds.
    """

    name: str
    what: str
    since_s: float
    clock: Callable[[], float] = time.monotonic

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """One line."""
        waited = f"  {self.what}, {self.clock() - self.since_s:.0f} s"
        yield Clean(renderable=Text.assemble((self.name, "bold cyan"), waited))


@contextlib.contextmanager
def waiting(console: Console, name: str, what: str) -> Iterator[None]:
    """Shows a `Waiting` on a terminal, which is gone at the end; elsewhere nothing.

    Args:
        console: where.
        name: of the phase.
        what: is done in it.
    """
    if not console.is_terminal:
        yield
        return
    line = Waiting(name=name, what=what, since_s=time.monotonic())
    with Live(line, console=console, refresh_per_second=_PER_SECOND, transient=True):
        yield
