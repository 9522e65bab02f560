"""Bringing arrays to the host, wherever their parts lie."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

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
