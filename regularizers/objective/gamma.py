"""Batch-norm gamma: a channel is as strong as the scale of its normalisation.

Source: Liu et al. 2017, "Learning efficient convolutional networks through network slimming".
"""

from __future__ import annotations

from regularizers.channels.graph import ChannelGraph
from regularizers.channels.parts import Group, Variable
from regularizers.objective.lasso import group_lasso
from regularizers.objective.norms import rms
from regularizers.objective.penalty import GroupPenalty, Pull, paths_of, sources_of


def gamma(graph: ChannelGraph, group: Group, l1_share: float = 0.0) -> GroupPenalty:
    """|gamma| of the normalisation layers; their shifts are pulled along.

    Where scales and shifts alone cannot make a channel exactly zero (a producer without a
    normalisation after it), the group falls back to group lasso.
    """
    paths = frozenset(variable.path for variable in graph.variables.values() if _norms(variable))
    own = sources_of(graph, group, rms, wanted=_norms)  # a single number per channel: its magnitude
    scales = tuple(source for source in own if graph.variables[source.path].kind == "scale")
    if not scales or group.name not in graph.exact_with(paths):
        return group_lasso(graph, group, l1_share)
    return GroupPenalty(
        group=group.name,
        width=group.width,
        penalty="gamma",
        measured=scales,
        pull=Pull(scaled=paths_of(own)),
    )


def _norms(variable: Variable) -> bool:
    """Whether it is a scale or a shift of a normalisation layer."""
    return variable.kind in ("scale", "shift") and len(variable.shape) == 1
