"""Shrink: from which channels are alive to an architecture."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from morph.architecture.architecture import Architecture
from morph.architecture.parts import Removed
from regularizers.channels.graph import GRAPH, ChannelGraph
from regularizers.checks import FLAG, NAMES, checked, whole


@checked(
    graph=GRAPH,
    removed=NAMES,
    min_width=whole(least=0),
    round_to=whole(least=1),
    fold=FLAG,
    inexact=FLAG,
)
def shrink(
    graph: ChannelGraph,
    alive: Mapping[str, Any],
    *,
    removed: Collection[str] = (),
    min_width: int = 1,
    round_to: int = 1,
    fold: bool = False,
    inexact: bool = False,
) -> Architecture:
    """The architecture that keeps the alive channels.

    Args:
        graph: the channel graph of the seed network.
        alive: for some groups, bool [width]: which channels stay. All others stay whole.
        removed: names of `graph.blocks` that leave, with their variables and all channel groups
            that only they produce.
        min_width: no group gets narrower; dead channels stay, in order, to fill it up.
        round_to: widths become multiples of it, in groups of which the seed's width is more; dead
            channels stay, in order, to fill them up. For devices that share an axis, and for
            hardware that computes in tiles.
        fold: also shrink groups whose dead channels a bias can take (`Group.folds`); take from
            `graph.fold(variables, alive)`, which has it there.
        inexact: also shrink groups whose dead channels are not zero where they are consumed. The
            function then changes; without it such groups stay whole.

    Returns:
        An `Architecture`; `compact(fn, it)(it.take(graph.mask(variables, alive)))` equals
        `fn(graph.mask(variables, alive))`, with `graph.mask(variables, alive, removed)` if blocks
        leave.

    Raises:
        KeyError: if a group or block is unknown. ValueError: if a mask does not fit its group, or
            every tower of a concatenation would leave.

    Example:
        >>> arch = morph.shrink(graph, {"Conv_0": np.array([True, False, True])})  # doctest: +SKIP
    """
    flags = graph.check_alive(alive)
    parents = {}
    for name, group in graph.groups.items():
        if group.exact or inexact or (fold and group.folds):
            dead, alive_now = np.flatnonzero(~flags[name]), int(flags[name].sum())
            wanted = _rounded(max(min_width, alive_now), group.width, round_to)
            flags[name][dead[: max(0, wanted - alive_now)]] = True
            parents[name] = tuple(np.flatnonzero(flags[name]).tolist())
    blocks = graph.check_removed(removed)
    parents |= {name: () for block in blocks for name in block.groups}
    return Architecture.of_seed(graph).with_parents(
        parents,
        removed=tuple(
            Removed(name=b.name, kind=b.kind, variables=b.variables, layers=b.layers)
            for b in blocks
        ),
    )


def _rounded(width: int, seed: int, round_to: int) -> int:
    """The next multiple up, at most the seed's width; as `morph.budget` rounds."""
    return min(seed, -(-width // round_to) * round_to) if seed > round_to else width
