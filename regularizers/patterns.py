"""Settings per pattern: `{"Conv_*": "gamma", "*": "group_lasso"}`; the first match wins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

from regularizers.channels.graph import ChannelGraph
from regularizers.channels.parts import Group
from regularizers.errors import InputError
from regularizers.messages import near

T = TypeVar("T")


def by_group(graph: ChannelGraph, patterns: Mapping[str, T], what: str) -> dict[str, T]:
    """What the patterns say of every group; a group that none matches is left out.

    A pattern is one of `fnmatch`; it matches a group by its name, or by the path of a variable that
    produces it or of a module around that: `Block_1/*`, `Conv_0/kernel`, `Block_1`.

    Args:
        graph: whose groups.
        patterns: what is said of the groups that match; the first that matches wins.
        what: the setting, for the message.

    Raises:
        ValueError: if a pattern matches nothing; the message lists near matches.
    """
    names = {name: set(_names(group)) for name, group in graph.groups.items()}
    for pattern in patterns:
        if not any(_matches(own, pattern) for own in names.values()):
            known = dict.fromkeys([*names, *(n for own in names.values() for n in sorted(own))])
            raise InputError(f"{what}: {pattern!r} matches no channel group{near(pattern, known)}")
    return {
        name: next(value for pattern, value in patterns.items() if _matches(own, pattern))
        for name, own in names.items()
        if any(_matches(own, pattern) for pattern in patterns)
    }


def matched(graph: ChannelGraph, patterns: Mapping[str, T]) -> dict[str, T]:
    """The patterns that match a group of the graph."""
    names = [set(_names(group)) for group in graph.groups.values()]
    return {
        pattern: value
        for pattern, value in patterns.items()
        if any(_matches(own, pattern) for own in names)
    }


def parse(text: str, what: str, value: Callable[[str], T]) -> dict[str, T]:
    """`"Conv_0=8,Block_*=4"` as a mapping; for command lines.

    Args:
        text: PATTERN=VALUE, separated by commas; empty for none.
        what: the setting, for the message.
        value: from a string to a value, e.g. `int`.

    Raises:
        ValueError: if it is none; the message shows one.

    Example:
        >>> parse("Conv_0=8,Block_*=4", "floors", int)
        {'Conv_0': 8, 'Block_*': 4}
    """
    found: dict[str, T] = {}
    for part in filter(None, text.split(",")):
        pattern, equals, said = part.rpartition("=")
        try:
            found[pattern.strip()] = value(said.strip())
        except ValueError:
            equals = ""
        if not equals or not pattern.strip():
            raise InputError(
                f"{what}: {part!r} is not PATTERN=VALUE; e.g. 'Conv_0=...,Block_*=...,*=...'"
            )
    return found


def _names(group: Group) -> Iterator[str]:
    """What a pattern may call a group."""
    yield group.name
    for member in group.members:
        if member.produces:
            parts = member.path.removeprefix("params/").split("/")
            yield from ("/".join(parts[:stop]) for stop in range(1, len(parts) + 1))


def _matches(names: set[str], pattern: str) -> bool:
    return any(name == pattern or fnmatchcase(name, pattern) for name in names)
