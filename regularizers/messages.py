"""Near matches, for messages."""

from __future__ import annotations

import difflib
from collections.abc import Collection


def near(name: str, known: Collection[str]) -> str:
    """The end of an error message: names close to `name`, or the first few known ones."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.4)
    if close:
        return "; did you mean " + " or ".join(map(repr, close)) + "?"
    some = ", ".join(map(repr, list(known)[:6]))
    return f"; known are {some}{', ...' if len(known) > 6 else ''}"
