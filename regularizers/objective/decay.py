"""Relative weight decay: the weaker a channel is in its group, the faster it decays.

Source: Fang et al. 2023, "DepGraph: Towards any structural pruning", section 3.3 (sparse training
of groups). There it is a term of the gradient, whose size depends on the optimizer; here a share
that weights lose at every step beside their update, as in decoupled weight decay (Loshchilov and
Hutter 2019).

Only variables decay whose norm the function does not mind, as kernels before a normalization: what
the network computes changes little, and they shrink, which makes their steps larger (van Laarhoven
2017). The function does not mind a norm where the gradient is orthogonal to the variable (Euler's
theorem on homogeneous functions), which is seen in the gradients themselves. Others stay: a vision
transformer that decayed as a whole was left 1.5 points behind one that was only cut.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from regularizers.channels.graph import ChannelGraph
from regularizers.objective.measures import Measures
from regularizers.objective.norms import root, widened
from regularizers.objective.slices import Slices, scaled, slices_of, slopes_at_one
from regularizers.objective.sums import Total, total_here

ORTHOGONAL = 1e-6  # size x cosine^2: rounding is below it (1e-8 before batch norms), chance not
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


class Decay(NamedTuple):
    """What one step of relative decay multiplies variables by; small, whatever their size.

    Attributes:
        kept: the share that channels keep, by group.
        minded: whether the loss changes with the norm of a variable, by path: these stay.
    """

    kept: dict[str, Float[Array, " width"]]
    minded: dict[str, Bool[Array, ""]]


class Weights(NamedTuple):
    """What decay depends on.

    Attributes:
        channels: the sum of the squares of all that carries a channel, by group.
        minded: whether the loss changes with the norm of a variable, by path.
    """

    channels: dict[str, Float[Array, " width"]]
    minded: dict[str, Bool[Array, ""]]


def weigh(
    measures: Measures,
    slices: Slices,
    variables: Mapping[str, Any],
    gradients: Mapping[str, tuple[Any, Any]],
    still: Collection[str] = (),
) -> Weights:
    """What decay depends on.

    Args:
        measures: of the network.
        slices: of `decaying`.
        variables: by path.
        gradients: by path, a variable and the loss's gradient there.
        still: the paths of what stays as it is.
    """
    total = measures.total
    squared = {p: jnp.square(leaf) for p, leaf in _moving(slices, variables, still).items()}
    groups = {name for path in slices for _, names in slices[path] for name in names}
    return Weights(
        # By a factor on a channel: half of the derivative of the sum of all squares.
        measures.sums.whole(slopes_at_one(measures.graph, slices, squared, groups, total)),
        {path: minds_norm(*gradients[path], total(path)) for path in squared},
    )


def find_decay(
    measures: Measures, rates: Mapping[str, Float[Array, ""]], weights: Weights
) -> Decay:
    """What one step of relative decay multiplies variables by.

    Args:
        measures: of the network.
        rates: by group, the share that its weakest channel loses.
        weights: of `weigh`.
    """
    kept = {name: 1.0 - rates[name] * speeds(own) for name, own in weights.channels.items()}
    return Decay(measures.sums.whole(kept), weights.minded)


def minds_norm(
    leaf: Float[Array | np.ndarray, "..."],
    gradient: Float[Array | np.ndarray, "..."],
    total: Total = total_here,
) -> Bool[Array, ""]:
    """Whether a function changes with the norm of a variable, by its gradient there.

    A random gradient has `size` times the squared cosine near 1 on average.

    Args:
        leaf: the variable.
        gradient: of the loss.
        total: how the variable is summed.
    """
    leaf, gradient = widened(leaf), widened(gradient)
    along = jnp.square(total(leaf * gradient, None)) * leaf.size
    across = total(jnp.square(leaf), None) * total(jnp.square(gradient), None)
    return along > ORTHOGONAL * across


def decayed(
    graph: ChannelGraph,
    slices: Slices,
    variables: Mapping[str, Any],
    decay: Decay,
    still: Collection[str] = (),
) -> dict[str, Any]:
    """The variables after one step of relative decay.

    Args:
        graph: the channel graph.
        slices: of `decaying`.
        variables: by path; what decays comes out in float32 if it is in half precision.
        decay: of `find_decay`.
        still: the paths of what stays as it is.
    """
    moved = {
        path: jnp.where(decay.minded[path], leaf, scaled(graph, path, leaf, slices, decay.kept))
        for path, leaf in _moving(slices, variables, still).items()
    }
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
