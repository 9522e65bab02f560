"""Slicing the leaves of a tree to the widths of an architecture."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from regularizers.channels.parts import Variable


class Place(NamedTuple):
    """Where a leaf stands in a tree: `head/tail/key`, where `tail` names its variable."""

    owner: str  # the variable's path
    head: str
    tail: str
    key: str


def takes_in(variable: Variable, k: int) -> bool:
    """Whether an axis of a variable consumes channels, which clones have to share."""
    is_own = k in variable.produces and variable.kind != "kernel"
    return k in variable.consumes and not is_own


def one_device(leaf: Any) -> Any:
    """Where an array lies, if that is one device; None for tracers, random keys and all else."""
    if not isinstance(leaf, jax.Array) or isinstance(leaf, jax.core.Tracer):
        return None
    whole = not jnp.issubdtype(leaf.dtype, jax.dtypes.extended) and len(leaf.devices()) == 1
    return leaf.sharding if whole else None
