"""The console of all commands: what it is given is text, never markup and never control codes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
from rich.segment import Segment

from morph.untrusted import printable


def terminal(**options: Any) -> Console:
    """A console that shows strings as they are, with escapes for control characters.

    Args:
        **options: of `rich.console.Console`.
    """
    console = Console(markup=False, emoji=False, highlight=False, **options)
    console.push_render_hook(_Printable())
    return console


class _Printable(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Wraps all that is printed."""
        return [Clean(renderable=renderable) for renderable in renderables]


@dataclass(frozen=True, kw_only=True)
class Clean:
    """Shows something with escapes for the control characters in its text."""

    renderable: ConsoleRenderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self.renderable, options):
            shown = segment.text if segment.control else printable(segment.text)
            yield Segment(shown, segment.style, segment.control)
