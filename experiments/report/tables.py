"""Tables and numbers as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from morph.untrusted import in_html


def esc(words: Any) -> str:
    """Text as HTML."""
    return in_html(words)


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], marks: Any = ()) -> str:
    """A table whose first column names the rows; the other columns stand to the right.

    Args:
        caption: plain text.
        head: of the columns.
        rows: plain text, one cell per column.
        marks: the class of every row, if rows differ.
    """
    marks = list(marks) or [""] * len(rows)
    heads = "".join(f'<th scope="col">{esc(cell)}</th>' for cell in head)
    lines = "\n".join(
        f'<tr class="{mark}"><th scope="row">{esc(row[0])}</th>'
        + "".join(f"<td>{esc(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row, mark in zip(rows, marks, strict=True)
    )
    return (
        f'<div class="scroll"><table><caption>{esc(caption)}</caption>\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{lines}\n</tbody></table></div>"
    )


def percent(value: float | None) -> str:
    """A share in words."""
    return "–" if value is None else f"{100 * value:.1f} %"
