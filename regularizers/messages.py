"""Near matches and causes, for messages."""

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


def cause(error: BaseException, longest: int = 300) -> str:
    """The kind of an error and the first line of its message.

    Example:
        >>> cause(KeyError("width"))
        "KeyError: 'width'"
    """
    lines = str(error).strip().splitlines()
    first = lines[0].strip() if lines else ""
    if len(first) > longest:
        first = first[: longest - 1] + "…"
    return f"{type(error).__name__}: {first}".rstrip(": .")


def reason(error: Exception) -> str:
    """Why a file cannot be read or written, without its path: the message around it names that."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
