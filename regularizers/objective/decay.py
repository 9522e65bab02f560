"""Relative weight decay: the weaker a channel is in its group, the faster all of it decays.

Source: Fang et al. 2023, "DepGraph: Towards any structural pruning", section 3.3 (sparse training
of groups). There it is a term of the gradient, whose size depends on the optimizer; here a share
that weights lose at every step beside their update, as in decoupled weight decay (Loshchilov and
Hutter 2019).

A variable keeps its norm, so that only the ratios between its channels change, unless the function
does not mind its norm, as of kernels before a batch norm: those shrink, which makes their steps
larger (van Laarhoven 2017). It does not where the gradient is orthogonal to the variable (Euler's
theorem on homogeneous functions), which is seen in the gradients themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from regularizers.channels.graph import ChannelGraph
from regularizers.objective.norms import root, widened
from regularizers.objective.slices import Slices, scaled, slices_of

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
        regained: what makes up for the norm that a variable would lose, by path.
    """

    kept: dict[str, Float[Array, " width"]]
    regained: dict[str, Float[Array, ""]]


def find_decay(
    graph: ChannelGraph,
    slices: Slices,
    variables: Mapping[str, Any],
    rates: Mapping[str, Float[Array, ""]],
    gradients: Mapping[str, tuple[Any, Any]],
    still: Collection[str] = (),
) -> Decay:
    """What one step of relative decay multiplies variables by.

    Args:
        graph: the channel graph.
        slices: of `decaying`.
        variables: by path.
        rates: by group, the share that its weakest channel loses.
        gradients: by path, a variable and the loss's gradient there.
        still: the paths of what stays as it is.
    """
    wide = _moving(slices, variables, still)

    def half_of_squares(factors: Mapping[str, Any]) -> Float[Array, ""]:
        every = [scaled(graph, path, leaf, slices, factors) for path, leaf in wide.items()]
        return 0.5 * jnp.stack([jnp.sum(jnp.square(leaf)) for leaf in every]).sum()

    # Its derivative by a factor on a channel is the sum of the squares of all that carries it.
    squares = jax.grad(half_of_squares)({name: jnp.ones(graph.widths[name]) for name in rates})
    kept = {name: 1.0 - rates[name] * speeds(own) for name, own in squares.items()}
    regained = {}
    for path, leaf in wide.items():
        square = jnp.sum(jnp.square(leaf))
        left = jnp.sum(jnp.square(scaled(graph, path, leaf, slices, kept)))
        loss = jnp.sqrt(jnp.where(left > 0.0, square / left, 1.0))
        regained[path] = jnp.where(minds_norm(*gradients[path], square), loss, 1.0)
    return Decay(kept, regained)


def minds_norm(
    leaf: Float[Array | np.ndarray, "..."],
    gradient: Float[Array | np.ndarray, "..."],
    square: Float[Array, ""],
) -> Bool[Array, ""]:
    """Whether a function changes with the norm of a variable, by its gradient there.

    A random gradient has `size` times the squared cosine near 1 on average.

    Args:
        leaf: the variable.
        gradient: of the loss.
        square: the variable's squared norm, or nearly so.
    """
    leaf, gradient = widened(leaf), widened(gradient)
    along = jnp.square(jnp.sum(leaf * gradient)) * leaf.size
    return along > ORTHOGONAL * square * jnp.sum(jnp.square(gradient))


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
        path: scaled(graph, path, leaf, slices, decay.kept) * decay.regained[path]
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
