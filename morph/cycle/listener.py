"""Who hears how a run goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


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
