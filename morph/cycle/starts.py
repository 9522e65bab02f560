"""What a phase starts from: fresh weights, or those that are there, widened."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from morph.architecture.architecture import Architecture
from morph.network import Network, Variables
from morph.resize.initialize import COMPILE_QUICKLY
from regularizers.channels.calls import flat_paths

SPREAD = 1.0  # of the shares of clones, relative to equal ones


def fresh(network: Network, key: Any, x: Any) -> Variables:
    """Variables as the network's own initialiser draws them."""
    return jax.jit(network.init, compiler_options=COMPILE_QUICKLY)(key, x)


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
