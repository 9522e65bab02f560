"""Stochastic gates as a penalty: a channel is as strong as its gate is probably open."""

from __future__ import annotations

from collections.abc import Iterable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from regularizers.channels.graph import ChannelGraph
from regularizers.channels.parts import Group
from regularizers.objective.gates import CLOSED, OPEN_SHARE, logits_of, path_of, probability
from regularizers.objective.lasso import group_lasso
from regularizers.objective.norms import widened
from regularizers.objective.penalty import GroupPenalty, Pull, Source, Written
from regularizers.objective.sums import Total

NAME = "gates"  # of the penalty
AJAR = 0.55  # a protected gate stays at least as probably open in evaluation, also if it was not


def gates(graph: ChannelGraph, group: Group, l1_share: float = 0.0) -> GroupPenalty:
    """The probability that a channel's stochastic gate is open; see `regularizers.objective.gates`.

    A group that no trained variable can silence falls back to group lasso.
    """
    trained = frozenset(path for path, variable in graph.variables.items() if variable.trained)
    if group.name not in graph.exact_with(trained):
        return group_lasso(graph, group, l1_share)
    path = path_of(graph, group.name)
    logits = Source(
        path=path,
        axis=0,
        shape=(group.width,),
        norm=_open,
        hint="gates.init(graph) makes the logits",
    )
    return GroupPenalty(
        group=group.name,
        width=group.width,
        penalty=NAME,
        measured=(logits,),
        pull=Pull(
            written=(Written(path=path, value=logits_of, at_zero=CLOSED),),
            least=AJAR,
            dead_up_to=OPEN_SHARE,
        ),
    )


def gated_groups(groups: Iterable[GroupPenalty]) -> tuple[str, ...]:
    """The groups whose channels have gates; what `gates.gated` is told."""
    return tuple(g.group for g in groups if g.penalty == NAME)


def _open(logits: Float[Array | np.ndarray, "..."], axis: int, total: Total) -> Float[Array, " n"]:
    return probability(total(widened(jnp.asarray(logits)), axis))  # of the one axis there is
