"""What a terminal shows while a program is compiled: that, and for how long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from experiments.console.terminal import Clean


@dataclass(frozen=True, kw_only=True)
class Compiling:
    """From the start of a phase to its first step; a new drawing shows the time that has passed.

    Attributes:
        name: of the phase.
        since_s: when it began.
        clock: returns the time in seconds.
    """

    name: str
    since_s: float
    clock: Callable[[], float]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """One line."""
        waited = f"  compiling, {self.clock() - self.since_s:.0f} s"
        yield Clean(renderable=Text.assemble((self.name, "bold cyan"), waited))
