"""Bringing arrays to the host, wherever their parts lie, and back."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding

Tree = TypeVar("Tree")


def on_host(tree: Tree) -> Tree:
    """The arrays of a tree as NumPy's.

    Where other processes hold parts of an array, all processes must ask for it at the same time.
    """

    def fetched(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            assert isinstance(leaf.sharding, NamedSharding)
            leaf = jax.device_put(leaf, NamedSharding(leaf.sharding.mesh, PartitionSpec()))
            leaf = leaf.addressable_data(0)
        return np.asarray(jax.device_get(leaf))

    fetched_tree: Tree = jax.tree.map(fetched, tree)
    return fetched_tree


def on_devices(leaf: Any, place: Sharding) -> jax.Array:
    """An array, equal in all processes, where a sharding says."""
    if isinstance(leaf, jax.Array) and (jax.process_count() == 1 or not leaf.is_fully_addressable):
        return jax.device_put(leaf, place)
    value = np.asarray(leaf)  # which all have: `device_put` would make sure every time
    return jax.make_array_from_callback(value.shape, place, lambda part: value[part])
