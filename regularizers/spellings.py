"""How a pattern may call a parameter: by its path or a module around it."""

from __future__ import annotations

from fnmatch import fnmatchcase

_PARAMS = "params/"


def spells(pattern: str, path: str) -> bool:
    """Whether a pattern of `fnmatch` names a parameter.

    Example:
        >>> [spells(p, "params/a/kernel") for p in ("a", "a/", "a/kernel", "params/a", "kernel")]
        [True, True, True, True, False]
    """
    asked = pattern.rstrip("/").removeprefix(_PARAMS)
    parts = path.removeprefix(_PARAMS).split("/")
    names = ["/".join(parts[:stop]) for stop in range(1, len(parts) + 1)]
    return any(name == asked or fnmatchcase(name, asked) for name in names)
