"""The one language of patterns: how a setting may call a layer, a parameter or a group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

from regularizers.errors import InputError, InputTypeError
from regularizers.messages import near

T = TypeVar("T")

_PARAMS = "params/"


def names(path: str, *, headed: bool = False) -> list[str]:
    """The path and the modules that it lies in, without and with the collection.

    Args:
        path: of a variable, e.g. `params/layers_0/kernel` or `layers_0/kernel`.
        headed: whether it begins with a collection; one that begins with `params/` does.
    """
    parts = path.split("/")
    starts = (1, 0) if headed or path.startswith(_PARAMS) else (0,)
    return ["/".join(parts[a:b]) for a in starts for b in range(a + 1, len(parts) + 1)]


def says(pattern: str, name: str) -> bool:
    """Whether a pattern of `fnmatch` says a name; a name with brackets says itself."""
    asked = pattern.rstrip("/")
    return name == asked or fnmatchcase(name, asked)


def spells(pattern: str, path: str, *, headed: bool = False) -> bool:
    """Whether a pattern names a variable: by its path or a module around it.

    Example:
        >>> [spells(p, "params/a/kernel") for p in ("a", "a/", "a/kernel", "params/a", "kernel")]
        [True, True, True, True, False]
    """
    known = names(path, headed=headed)
    if not headed and not path.startswith(_PARAMS):
        pattern = pattern.removeprefix(_PARAMS)
    return any(says(pattern, name) for name in known)


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
    headed = any(path.startswith(_PARAMS) for path in paths)
    found: set[int] = set()
    for pattern in listed:
        matches = {i for i, path in enumerate(paths) if spells(pattern, path, headed=headed)}
        if not matches:
            known = dict.fromkeys(name for path in paths for name in names(path, headed=headed))
            raise InputError(
                f"{what}={pattern!r} matches no layer or variable{near(pattern, known)}"
            )
        found |= matches
    return found


def parse(text: str, what: str, value: Callable[[str], T]) -> dict[str, T]:
    """`"Conv_0=8,Block_*=4"` as a mapping; for command lines.

    Args:
        text: PATTERN=VALUE, separated by commas; empty for none.
        what: the setting, for the message.
        value: from a string to a value, e.g. `int`.

    Raises:
        ValueError: if it is none, or a pattern is given twice; the message shows one.

    Example:
        >>> parse("Conv_0=8,Block_*=4", "floors", int)
        {'Conv_0': 8, 'Block_*': 4}
    """
    found: dict[str, T] = {}
    for part in filter(None, text.split(",")):
        pattern, equals, said = (piece.strip() for piece in part.rpartition("="))
        if pattern in found:
            raise InputError(f"{what}: {pattern!r} is given twice; the first that matches counts")
        try:
            found[pattern] = value(said)
        except ValueError:
            equals = ""
        if not equals or not pattern:
            raise InputError(
                f"{what}: {part!r} is not PATTERN=VALUE; e.g. 'Conv_0=...,Block_*=...,*=...'"
            )
    return found
