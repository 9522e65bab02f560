"""Multiplying the slices of variables that make a channel by one factor per channel."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from regularizers.channels.graph import ChannelGraph
from regularizers.objective.sums import Total
from regularizers.primitives import axes as ax

# For each variable the axes that are scaled, and by which groups.
Slices: TypeAlias = Mapping[str, tuple[tuple[int, frozenset[str]], ...]]


def slices_of(
    graph: ChannelGraph, paths: Mapping[str, Collection[str]], *, consumed: bool = False
) -> Slices:
    """The axes of variables that groups scale.

    Args:
        graph: the channel graph.
        paths: for each group, the variables that it scales.
        consumed: along the axes that consume it, too, not only along those that produce it.
    """
    table: dict[str, tuple[tuple[int, frozenset[str]], ...]] = {}
    for path in dict.fromkeys(path for own in paths.values() for path in own):
        scaling = frozenset(group for group, own in paths.items() if path in own)
        variable = graph.variables[path]
        along = variable.produces | variable.consumes if consumed else variable.produces
        found = [(k, scaling.intersection(ax.groups_of(variable.axes[k]))) for k in sorted(along)]
        table[path] = tuple((k, names) for k, names in found if names)
    return table


def scaled(
    graph: ChannelGraph,
    path: str,
    leaf: Float[Array | np.ndarray, "..."],
    slices: Slices,
    factors: Mapping[str, Any],
) -> Float[Array, "..."]:
    """A variable with its slices times the factors [width] of the groups that scale it."""
    for k, names in slices.get(path, ()):
        factor = _spread(graph, graph.variables[path].axes[k], names, factors)
        shape = [-1 if i == k else 1 for i in range(leaf.ndim)]
        leaf = (leaf * factor.reshape(shape)).astype(jnp.result_type(leaf))
    return jnp.asarray(leaf)


def slopes_at_one(
    graph: ChannelGraph,
    slices: Slices,
    products: Mapping[str, Float[Array, "..."]],
    groups: Collection[str],
    total: Callable[[str], Total],
) -> dict[str, Float[Array, " width"]]:
    """The derivative of something by the factors of `scaled`, where they are 1, by group.

    Args:
        graph: the channel graph.
        slices: what is scaled.
        products: by path, a variable times the derivative by it.
        groups: the names of those that are asked for.
        total: how a variable is summed, by path.
    """
    ones = {name: jnp.ones(graph.widths[name]) for name in groups}
    found = {name: jnp.zeros(graph.widths[name]) for name in groups}
    for path, product in products.items():
        for k, names in slices[path]:
            axis, own = graph.variables[path].axes[k], names.intersection(groups)

            def spread(factors: Mapping[str, Any], axis: Any = axis, own: Any = own) -> Any:
                return _spread(graph, axis, own, factors)

            factor, back = jax.vjp(spread, {name: ones[name] for name in own})
            (slopes,) = back(total(path)(product, k).astype(factor.dtype))
            found |= {name: found[name] + slope for name, slope in slopes.items()}
    return found


def _spread(
    graph: ChannelGraph, axis: ax.Axis, names: Collection[str], factors: Mapping[str, Any]
) -> Float[Array, " n"]:
    """The factor of every position of an axis: those of its groups, multiplied."""
    own = {
        name: factors[name] if name in names else jnp.ones(graph.widths[name])
        for name in ax.groups_of(axis)
    }
    factor: Float[Array, " n"] = ax.spread(axis, own, jnp.ones, jnp.multiply, jnp.concatenate)
    return factor
