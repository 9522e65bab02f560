"""Group lasso: a channel is as strong as the weights that produce it.

Source: Yuan and Lin 2006; RMS over the fan-in as in MorphNet (Gordon et al. 2018).
"""

from __future__ import annotations

from functools import partial

from regularizers.channels.graph import ChannelGraph
from regularizers.channels.parts import Group
from regularizers.objective.norms import rms
from regularizers.objective.penalty import GroupPenalty, Pull, paths_of, sources_of


def group_lasso(graph: ChannelGraph, group: Group, l1_share: float = 0.0) -> GroupPenalty:
    """RMS over the slices of every trained variable that produces the group."""
    norm = partial(rms, l1_share=l1_share) if l1_share else rms
    sources = sources_of(graph, group, norm)
    return GroupPenalty(
        group=group.name,
        width=group.width,
        penalty="group_lasso",
        measured=sources,
        pull=Pull(scaled=paths_of(sources)),
    )
