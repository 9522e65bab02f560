"""What a phase starts from: fresh weights, or those that are there, widened."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from morph.initialize import COMPILE_QUICKLY
from morph.network import Network, Variables

NOISE = 0.02  # relative, of kernels that were cloned


def fresh(network: Network, key: Any, x: Any) -> Variables:
    """Variables as the network's own initialiser draws them."""
    return jax.jit(network.init, compiler_options=COMPILE_QUICKLY)(key, x)


def told_apart(variables: Variables, key: Any) -> Variables:
    """Variables with a little noise on every kernel, relative to each weight.

    Clones of a channel have equal gradients: without it they would stay equal for ever, and the
    wider network be worth no more than the narrow one (Chen et al. 2016).
    """
    leaves, tree = jax.tree.flatten(variables["params"])
    keys = jax.random.split(key, len(leaves))
    noisy = [
        leaf * (1.0 + NOISE * jax.random.normal(own, leaf.shape, leaf.dtype))
        if jnp.ndim(leaf) > 1
        else leaf
        for leaf, own in zip(leaves, keys, strict=True)
    ]
    return {**variables, "params": jax.tree.unflatten(tree, noisy)}
