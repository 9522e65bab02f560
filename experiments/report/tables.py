"""Tables and numbers as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from morph.untrusted import in_html


def esc(words: Any) -> str:
    """Text as HTML."""
    return in_html(words)


def table(
    caption: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    marks: Any = (),
    strong: Sequence[int] = (),
) -> str:
    """A table whose first column names the rows; the other columns stand to the right.

    Args:
        caption: plain text; none where the heading above says it.
        head: of the columns.
        rows: plain text, one cell per column.
        marks: the class of every row, if rows differ.
        strong: of every row the number of a cell that stands out, if any do.
    """
    marks = list(marks) or [""] * len(rows)
    strong = list(strong) or [0] * len(rows)
    heads = "".join(f'<th scope="col">{esc(cell)}</th>' for cell in head)
    lines = "\n".join(
        f'<tr class="{mark}"><th scope="row">{esc(row[0])}</th>'
        + "".join(
            f"<td><strong>{esc(cell)}</strong></td>" if k == own else f"<td>{esc(cell)}</td>"
            for k, cell in enumerate(row[1:], 1)
        )
        + "</tr>"
        for row, mark, own in zip(rows, marks, strong, strict=True)
    )
    above = f"<caption>{esc(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll" tabindex="0"><table>{above}\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{lines}\n</tbody></table></div>"
    )


def percent(value: float | None) -> str:
    """A share in words."""
    return "–" if value is None else f"{100 * value:.1f} %"


def spelled(seconds: float) -> str:
    """A length of time in words.

    Example:
        >>> spelled(9), spelled(83), spelled(3723)
        ('9 s', '1 min 23 s', '1 h 2 min')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
