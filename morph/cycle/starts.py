"""What a phase starts from: fresh weights, or those that are there, widened."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from morph.architecture.architecture import Architecture
from morph.network import Network, Variables
from morph.resize.initialize import COMPILE_QUICKLY, FANS
from morph.training.layout import Layout
from regularizers.channels.calls import flat_paths

SPREAD = 1.0  # of the shares of clones, relative to equal ones


def fresh(network: Network, key: Any, x: Any, layout: Layout | None = None) -> Variables:
    """Variables as the network's own initializer draws them, where a layout says."""
    places = None if layout is None else layout.places(jax.eval_shape(network.init, key, x))
    options = {} if places is None else {"out_shardings": places}
    return jax.jit(network.init, compiler_options=COMPILE_QUICKLY, **options)(key, x)


def scaled_to(
    architecture: Architecture, variables: Variables, laws: Mapping[str, str]
) -> Variables:
    """The seed's own draw, scaled to what it would be at an architecture's widths.

    Numbers that are drawn independently are as good cut out of a larger array; only scales depend
    on fans (see `morph.resize.initialize`).

    Args:
        architecture: relative to the seed.
        variables: as drawn, at the seed's widths.
        laws: of the seed's initializer, see `infer_laws`.
    """
    paths, leaves, tree = flat_paths(variables)
    scaled = []
    for path, leaf in zip(paths, leaves, strict=True):
        fan, variable = FANS.get(laws[path]), architecture.variables[path]
        if fan is not None:
            ratio = fan(variable, variable.shape) / fan(variable, architecture.shape(path))
            leaf = leaf * jnp.asarray(math.sqrt(ratio), leaf.dtype)
        scaled.append(leaf)
    return dict(jax.tree.unflatten(tree, scaled))


def told_apart(step: Architecture, variables: Variables, key: Any) -> Variables:
    """Variables whose clones give unequal shares to what consumes them, in all what they gave.

    Clones of a channel whose shares are equal have equal gradients: they would stay equal for ever,
    and the wider network be worth no more than the narrow one (Chen et al. 2016 add noise, which
    changes the function; shares that add up do not).

    Args:
        step: the widening.
        variables: what it took.
        key: of the shares.
    """
    paths, leaves, tree = flat_paths(variables)
    shared = []
    for path, leaf, own in zip(paths, leaves, jax.random.split(key, len(leaves)), strict=True):
        for k, origin in list(step.clones(path).items())[:1]:
            noise = np.moveaxis(np.asarray(jax.random.normal(own, leaf.shape, leaf.dtype)), k, 0)
            count = np.bincount(origin)[origin].reshape(-1, *[1] * (leaf.ndim - 1))
            sums = np.zeros((origin.max() + 1, *noise.shape[1:]), noise.dtype)
            np.add.at(sums, origin, noise)
            share = 1.0 + SPREAD * (noise - sums[origin] / count)
            leaf = leaf * jnp.asarray(np.moveaxis(share, 0, k), leaf.dtype)
        shared.append(leaf)
    return dict(jax.tree.unflatten(tree, shared))
