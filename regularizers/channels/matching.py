"""Patterns of variable paths."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence

from regularizers.errors import InputError, InputTypeError
from regularizers.messages import near


def matching(patterns: str | Sequence[str], paths: Sequence[str], what: str) -> set[int]:
    """The positions of the paths that match a pattern, as a whole or up to a `/`.

    Patterns are those of `fnmatch`, with or without the collection: `Block_*`, `params/head/bias`.

    Raises:
        TypeError: if they are no patterns.
        ValueError: if a pattern matches nothing; the message lists near matches.
    """
    listed = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(listed, list | tuple) or not all(
        isinstance(pattern, str) for pattern in listed
    ):
        raise InputTypeError(
            f"{what} must be a pattern or a list of them, e.g. {what}='backbone', found "
            f"{patterns!r}. (A keyword of this name of your own function: use functools.partial.)"
        )
    found: set[int] = set()
    for pattern in listed:
        matches = {i for i, path in enumerate(paths) if _matches(path, pattern)}
        if not matches:
            known = dict.fromkeys(name for path in paths for name in _names(path))
            raise InputError(
                f"{what}={pattern!r} matches no layer or variable{near(pattern, known)}"
            )
        found |= matches
    return found


def _matches(path: str, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern.rstrip("/")) for name in _names(path))


def _names(path: str) -> Iterator[str]:
    """The path and the modules that it lies in, with and without the collection."""
    parts = path.split("/")
    for start in (1, 0):
        for stop in range(start + 1, len(parts) + 1):
            yield "/".join(parts[start:stop])
