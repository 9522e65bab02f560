"""Relative weight decay: the weaker a channel is in its group, the faster all of it decays.

Source: Fang et al. 2023, "DepGraph: Towards any structural pruning", section 3.3 (sparse training
of groups). There it is a term of the gradient, whose size depends on the optimizer; here a share
that weights lose at every step beside their update, as in decoupled weight decay (Loshchilov and
Hutter 2019).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from regularizers.channels.graph import ChannelGraph
from regularizers.objective.norms import root, widened
from regularizers.objective.slices import Slices, scaled, slices_of

STEEPEST = 16.0  # times as fast as the strongest channel of a group its weakest decays


def decaying(graph: ChannelGraph, groups: Collection[str]) -> Slices:
    """What decays: every trained slice that carries a channel, its shifts apart.

    Args:
        graph: the channel graph.
        groups: the names of those that decay.
    """
    paths = {
        name: [
            member.path
            for member in graph.groups[name].members
            if graph.variables[member.path].trained and member.kind != "shift"
        ]
        for name in groups
    }
    return slices_of(graph, paths, consumed=True)


def kept_shares(
    graph: ChannelGraph,
    slices: Slices,
    variables: Mapping[str, Any],
    rates: Mapping[str, Float[Array, ""]],
    still: Collection[str] = (),
) -> dict[str, Float[Array, " width"]]:
    """The share that channels keep at one step of relative decay, by group.

    Args:
        graph: the channel graph.
        slices: of `decaying`.
        variables: by path.
        rates: by group, the share that its weakest channel loses.
        still: the paths of what stays as it is.
    """
    wide = _moving(slices, variables, still)

    def half_of_squares(factors: Mapping[str, Any]) -> Float[Array, ""]:
        every = [scaled(graph, path, leaf, slices, factors) for path, leaf in wide.items()]
        return 0.5 * jnp.stack([jnp.sum(jnp.square(leaf)) for leaf in every]).sum()

    # Its derivative by a factor on a channel is the sum of the squares of all that carries it.
    squares = jax.grad(half_of_squares)({name: jnp.ones(graph.widths[name]) for name in rates})
    return {name: 1.0 - rates[name] * speeds(own) for name, own in squares.items()}


def decayed(
    graph: ChannelGraph,
    slices: Slices,
    variables: Mapping[str, Any],
    kept: Mapping[str, Float[Array, " width"]],
    still: Collection[str] = (),
) -> dict[str, Any]:
    """The variables after one step of relative decay.

    Args:
        graph: the channel graph.
        slices: of `decaying`.
        variables: by path; what decays comes out in float32 if it is in half precision.
        kept: of `kept_shares`.
        still: the paths of what stays as it is.
    """
    moving = _moving(slices, variables, still)
    moved = {path: scaled(graph, path, leaf, slices, kept) for path, leaf in moving.items()}
    return {**variables, **moved}


def _moving(slices: Slices, variables: Mapping[str, Any], still: Collection[str]) -> dict[str, Any]:
    return {
        path: widened(leaf)
        for path, leaf in variables.items()
        if path in slices and path not in still and jnp.issubdtype(leaf.dtype, jnp.floating)
    }


def speeds(squares: Float[Array, " width"]) -> Float[Array, " width"]:
    """How fast the channels of a group decay, 1 for the weakest: geometric in their norms.

    Args:
        squares: the squared norm of each.

    Example:
        >>> speeds(jnp.array([1.0, 4.0, 9.0])).tolist()
        [1.0, 0.25, 0.0625]
    """
    norms = root(squares)
    span = norms.max() - norms.min()
    weakness = jnp.where(span > 0.0, (norms.max() - norms) / jnp.where(span > 0.0, span, 1.0), 0.0)
    return STEEPEST ** (weakness - 1.0)
