"""Blocks that left a network: what they were, and trees without their variables."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import jax

from regularizers.channels.calls import flat_paths
from regularizers.channels.flax_values import place_in
from regularizers.errors import InputError, InputTypeError


class _Gone:
    """Stands in a tree where a leaf left."""

    def __repr__(self) -> str:
        return "GONE"


GONE = _Gone()


def without(tree: Any, gone: Collection[int]) -> Any:
    """The tree without the leaves at some positions, and the mappings that this leaves empty.

    Raises:
        TypeError: if one stands in a container from which nothing can be left out, e.g. a tuple.
    """
    _, leaves, treedef = flat_paths(tree)
    marked = [GONE if i in gone else leaf for i, leaf in enumerate(leaves)]
    left = _pruned(jax.tree.unflatten(treedef, marked), {})
    if any(leaf is GONE for leaf in jax.tree.leaves(left)):
        raise InputTypeError(
            "a variable of a removed block stands in a tuple or list, which cannot get shorter; "
            "blocks can be removed where variables are kept in mappings, as Flax keeps them."
        )
    return left


def _pruned(tree: Any, empty: Any) -> Any:
    """The tree without what is `GONE`; a mapping that is left without anything becomes `empty`."""

    def kept(node: Any) -> Any:
        if not isinstance(node, Mapping):
            return node
        left = {key: found for key, v in node.items() if (found := _value(v)) is not GONE}
        make: Any = type(node)
        return make(left) if left or not node else empty

    return jax.tree.map(kept, tree, is_leaf=lambda node: isinstance(node, Mapping))


def _value(value: Any) -> Any:
    """A value of a mapping, pruned; `GONE` if it is a mapping or a box of which nothing is left."""
    left = _pruned(value, GONE if isinstance(value, Mapping) else {})
    if isinstance(left, Mapping | tuple | list):
        return left
    return GONE if [leaf is GONE for leaf in jax.tree.leaves(left)] == [True] else left


def restored(tree: Any, missing: Mapping[str, Any]) -> Any:
    """The tree with these leaves put back, by path: the inverse of leaving them out.

    A part of a path that consists of digits becomes an integer key, as the lists of NNX models
    have, unless its neighbours are text.

    Raises:
        TypeError: if the tree is not made of mappings.
        ValueError: if one of the leaves is there.
    """
    there = set(flat_paths(tree)[0]).intersection(missing)
    if there:
        raise InputError(
            f"{min(there)!r} belongs to a block that was removed; pass architecture.take(variables)"
        )
    full = tree
    for path, leaf in missing.items():
        full = _with(full, *place_in(tree, path, leaf))
    return full


def _with(node: Any, keys: list[str], leaf: Any) -> Any:
    if not keys:
        return leaf
    if not isinstance(node, Mapping):
        raise InputTypeError(
            f"cannot put {'/'.join(keys)!r} back into a {type(node).__name__}; blocks can be "
            "removed where variables are kept in mappings, as Flax keeps them."
        )
    texts = [key for key in node if isinstance(key, str)]
    key: Any = int(keys[0]) if keys[0].isdigit() and not texts else keys[0]
    rest = keys[1:]
    if len(keys) > 2 and (
        "~" in keys or any("/" in text for text in texts)
    ):  # Haiku has no nesting
        key, rest = "/".join(keys[:-1]), keys[-1:]
    inner = _with(node.get(key, {}), rest, leaf)
    make: Any = type(node)
    return make({**node, key: inner})
