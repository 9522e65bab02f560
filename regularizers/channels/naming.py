"""What a pattern may call a channel group; the first pattern that matches wins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from regularizers.channels.graph import ChannelGraph
from regularizers.channels.parts import Group
from regularizers.errors import InputError
from regularizers.messages import near
from regularizers.patterns import names, says

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
    called = {name: set(_names(group)) for name, group in graph.groups.items()}
    for pattern in patterns:
        if not any(_matches(own, pattern) for own in called.values()):
            known = dict.fromkeys([*called, *(n for own in called.values() for n in sorted(own))])
            raise InputError(f"{what}: {pattern!r} matches no channel group{near(pattern, known)}")
    return {
        name: next(value for pattern, value in patterns.items() if _matches(own, pattern))
        for name, own in called.items()
        if any(_matches(own, pattern) for pattern in patterns)
    }


def matched(graph: ChannelGraph, patterns: Mapping[str, T]) -> dict[str, T]:
    """The patterns that match a group of the graph, where the others' groups may be gone."""
    called = [set(_names(group)) for group in graph.groups.values()]
    return {
        pattern: value
        for pattern, value in patterns.items()
        if any(_matches(own, pattern) for own in called)
    }


def _names(group: Group) -> Iterator[str]:
    """What a pattern may call a group."""
    yield group.name
    for member in group.members:
        if member.produces:
            yield from names(member.path)


def _matches(known: set[str], pattern: str) -> bool:
    return any(says(pattern, name) for name in known)
