"""Flax's own values among a user's: NNX states in a tree, modules where functions are due.

Nothing here imports Flax: before it is loaded nobody can hold anything of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import jax

KeyPath = tuple[Any, ...]
RANDOM = (
    "rngs"  # the collection of NNX's random streams, which are no variables: a tree may lack it
)


def keyed_leaves(tree: Any) -> list[tuple[KeyPath, Any]]:
    """The leaves of a tree with their keys, without those of boxes and variables of Flax.

    Below an NNX state the first key is the collection, as in Linen's variables: `params` for
    every kind of `nnx.Param`, `batch_stats`, and so on. An optimizer's state has none.
    """
    nnx = sys.modules.get("flax.nnx")
    states: Any = getattr(nnx, "State", ())

    def is_state(node: Any) -> bool:
        return isinstance(node, states)

    nodes = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_state)[0]
    if not any(is_state(node) for _, node in nodes):
        return [(unboxed(path), leaf) for path, leaf in nodes]
    found: list[tuple[KeyPath, Any]] = []
    for path, node in nodes:
        entries = _of_state(nnx, node) if is_state(node) else [((), node)]
        found += [(unboxed((*path, *inner)), leaf) for inner, leaf in entries]
    return found


def _of_state(nnx: Any, state: Any) -> Iterator[tuple[KeyPath, Any]]:
    def is_variable(node: Any) -> bool:
        return isinstance(node, nnx.Variable)

    for path, variable in jax.tree_util.tree_flatten_with_path(state, is_leaf=is_variable)[0]:
        name = collection_of(nnx, type(variable)) if is_variable(variable) else None
        first = () if name is None else (jax.tree_util.DictKey(name),)
        for inner, leaf in jax.tree_util.tree_flatten_with_path(variable)[0]:
            yield (*first, *path, *inner), leaf


def collection_of(nnx: Any, kind: type) -> str | None:
    """The collection of a kind of NNX variable, as Linen calls it; None for an optimizer's."""
    if issubclass(kind, nnx.Param):
        return "params"
    if issubclass(kind, nnx.optimizer.OptState):
        return None
    if issubclass(kind, nnx.RngState):
        return RANDOM
    return str(nnx.variable_name_from_type(kind, allow_register=True))


def place_in(tree: Any, path: str, leaf: Any) -> tuple[list[str], Any]:
    """The keys of a leaf in a tree, and what stands there: in a state, a variable of its kind."""
    keys = path.split("/")
    nnx = sys.modules.get("flax.nnx")
    if nnx is None or not isinstance(tree, nnx.State):
        return keys, leaf
    return keys[1:], nnx.variable_type_from_name(keys[0], allow_register=True)(leaf)


def unboxed(path: KeyPath) -> KeyPath:
    """The keys without the last one if that leads into a box, as `nn.with_partitioning` makes."""
    last = path[-1] if path else None
    is_box = isinstance(last, jax.tree_util.GetAttrKey) and last.name == "value"
    return path[:-1] if is_box else path


def framework_of(value: Any) -> str:
    """`linen` or `nnx` for a module of these, "" for all else."""
    for name in ("linen", "nnx"):
        package = sys.modules.get(f"flax.{name}")
        if package is not None and isinstance(value, package.Module):
            return name
    return ""
