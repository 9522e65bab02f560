"""NNX models on the same road: a function and its state, in Linen's layout."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
from flax import nnx

from regularizers.channels.calls import flat_paths
from regularizers.checks import a, checked


@checked(model=a(nnx.Module, "an nnx.Module; of Linen take model.apply"))
def nnx_function(model: nnx.Module) -> tuple[Callable[..., Any], dict[str, Any]]:
    """An NNX model as a pure function and its state by collection, as Linen has it.

    Args:
        model: any NNX module. It is not changed.

    Returns:
        `fn(variables, *inputs, train=False, mutable=(), rngs=None, **kwargs)` and `variables`:
        `{"params": {...}, "batch_stats": {...}, ...}`, one collection per `nnx.Variable` type.
        `train` calls `model.train()` or `model.eval()`. With `mutable=["batch_stats"]` the result
        is `(output, {"batch_stats": updated})`, like `linen.Module.apply`. `rngs={"dropout": key}`
        reseeds the model's streams of these names, and its default stream where it has none of a
        name, as `nnx.Rngs` does; random streams are no variables.

    Example:
        >>> fn, variables = nnx_function(nnx.Linear(4, 3, rngs=nnx.Rngs(0)))
        >>> fn(variables, jax.numpy.ones((2, 4))).shape
        (2, 3)
    """
    graphdef, *states = nnx.split(model, nnx.RngState, ...)
    streams, state = states
    tree = jax.tree.structure(state)
    names = {variable.tag for _, variable in nnx.to_flat_state(streams)}

    def fn(
        variables: Mapping[str, Any],
        *inputs: Any,
        train: bool = False,
        mutable: Collection[str] = (),
        rngs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        leaves = [leaf_at(variables, place) for place in places]
        copy = nnx.merge(graphdef, streams, jax.tree.unflatten(tree, leaves), copy=True)
        copy.train() if train else copy.eval()
        if rngs:
            nnx.reseed(copy, **_by_stream(rngs, names))
        output = copy(*inputs, **kwargs)
        if not mutable:
            return output
        _, *after = nnx.split(copy, nnx.RngState, ...)
        updated = collections_of(after[1])[0]
        return output, {name: updated[name] for name in mutable if name in updated}

    variables, places = collections_of(state)
    return fn, variables


def _by_stream(rngs: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """The keys by the model's own streams; a name that it does not have means the default one."""
    seeds = {name: key for name, key in rngs.items() if name in names}
    others = [key for name, key in rngs.items() if name not in names]
    if others and "default" in names:
        seeds.setdefault("default", others[0])
    return seeds


def collections_of(state: Any) -> tuple[dict[str, Any], list[tuple[str, ...]]]:
    """A state as nested dictionaries by collection, and where each of its leaves went."""
    nested: dict[str, Any] = {}
    places: list[tuple[str, ...]] = []
    for path, variable in nnx.to_flat_state(state):
        collection = nnx.variable_name_from_type(type(variable), allow_register=True)
        names, leaves, _ = flat_paths(variable)
        for name, leaf in zip(names, leaves, strict=True):
            inner = () if name in ("", "value") else tuple(name.split("/"))
            place = (collection, *map(str, path), *inner)
            node = nested
            for key in place[:-1]:
                node = node.setdefault(key, {})
            node[place[-1]] = leaf
            places.append(place)
    return nested, places


def leaf_at(variables: Mapping[str, Any], place: tuple[str, ...]) -> Any:
    """The leaf at one of the places that `collections_of` tells."""
    node: Any = variables
    for key in place:
        node = node[key]
    return node
