"""NNX models on the same road: a function and its state, in Linen's layout."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
from flax import nnx

from regularizers.channels.calls import flat_paths
from regularizers.channels.flax_values import collection_of
from regularizers.checks import a, checked
from regularizers.errors import UnknownNameError
from regularizers.messages import near

OURS = ("train", "mutable", "rngs")  # keywords that say something of the call, as Linen's do


@checked(model=a(nnx.Module, "an nnx.Module; of Linen take model.apply"))
def nnx_function(model: nnx.Module) -> tuple[Callable[..., Any], dict[str, Any]]:
    """An NNX model as a pure function and its state by collection, as Linen has it.

    Args:
        model: any NNX module. It is not changed.

    Returns:
        `fn(variables, *inputs, train=False, mutable=(), rngs=None, **kwargs)` and `variables`:
        `{"params": {...}, "batch_stats": {...}, ...}`, one collection per `nnx.Variable` type;
        every kind of `nnx.Param` is in `params`. The function takes `nnx.state(model)`, too.
        `train` calls `model.train()` or `model.eval()`. With `mutable=["batch_stats"]` the result
        is `(output, {"batch_stats": updated})`, like `linen.Module.apply`. `rngs={"dropout": key}`
        reseeds the model's streams of these names, and its default stream where it has none of a
        name, as `nnx.Rngs` does; random streams are no variables. Each of the three also reaches
        the model if that has an argument of its name; as `rngs` it gets `nnx.Rngs`.

    Raises:
        TypeError: if it is no NNX module.

    Example:
        >>> fn, variables = nnx_function(nnx.Linear(4, 3, rngs=nnx.Rngs(0)))
        >>> fn(variables, jax.numpy.ones((2, 4))).shape
        (2, 3)
    """
    graphdef, *states = nnx.split(model, nnx.RngState, ...)
    streams, state = states
    tree = jax.tree.structure(state)
    names = {variable.tag for _, variable in nnx.to_flat_state(streams)}
    own = own_arguments(model) - ({"rngs"} if names and _is_flax(model) else set())

    def fn(
        variables: Any,
        *inputs: Any,
        train: bool | None = None,
        mutable: Any = (),
        rngs: Any = None,
        **kwargs: Any,
    ) -> Any:
        leaves = leaves_at(variables, places)
        copy = nnx.merge(graphdef, streams, jax.tree.unflatten(tree, leaves), copy=True)
        copy.train() if train else copy.eval()
        if rngs:
            nnx.reseed(copy, policy=_each_its_own, **_by_stream(_keys_of(rngs), names))
        given = {"train": train, "mutable": mutable or None, "rngs": rngs and _streams_of(rngs)}
        kwargs |= {name: given[name] for name in own if given[name] is not None}
        output = copy(*inputs, **kwargs)
        wanted = _wanted(mutable, whole, is_models="mutable" in own)
        if wanted is None:
            return output
        _, *after = nnx.split(copy, nnx.RngState, ...)
        updated = collections_of(after[1])[0]
        return output, {name: updated[name] for name in wanted if name in updated}

    whole, places = collections_of(state)
    return fn, whole


def own_arguments(model: nnx.Module) -> frozenset[str]:
    """Which of `train`, `mutable` and `rngs` the model's own call takes by name.

    What it hands on as `**kwargs` counts if a module inside it has an argument of that name;
    Flax's layers do not, which get theirs from their attributes.
    """
    taken = set()
    outer = _parameters(model)
    hands_on = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in outer.values())
    for _, module in nnx.iter_modules(model):
        if module is model or (hands_on and not _is_flax(module) and not _is_flax(model)):
            taken |= {name for name in OURS if name in _parameters(module)}
    return frozenset(taken)


def _parameters(module: nnx.Module) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(type(module).__call__).parameters if callable(module) else {}


def _is_flax(module: nnx.Module) -> bool:
    return type(module).__module__.split(".")[0] == "flax"


def _wanted(mutable: Any, variables: Mapping[str, Any], is_models: bool) -> list[str] | None:
    """The collections that are asked for; None for none, and where `mutable` is the model's own."""
    if isinstance(mutable, bool | str) and is_models:
        return None
    if isinstance(mutable, bool):
        return list(variables) if mutable else None
    if isinstance(mutable, str):
        return [mutable]
    return list(mutable) if isinstance(mutable, Collection) and len(mutable) else None


def _keys_of(rngs: Any) -> Mapping[str, Any]:
    """One key of each stream; it does not move on, so that calls are pure."""
    if not isinstance(rngs, nnx.Rngs):
        return rngs if isinstance(rngs, Mapping) else {}
    return {
        name: jax.random.fold_in(stream.key.get_value(), stream.count.get_value())
        for name, stream in rngs.items()
    }


def _streams_of(rngs: Any) -> Any:
    """What a model gets as its own `rngs`: new streams, so that it moves none of the caller's."""
    return nnx.Rngs(**rngs) if isinstance(rngs, Mapping) else jax.tree.map(lambda leaf: leaf, rngs)


def _each_its_own(path: Any, key: Any, shape: tuple[int, ...]) -> Any:
    """Streams that were forked, for layers that `nnx.vmap` made, get a key each."""
    del path
    return jax.random.split(key, shape) if shape else key


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
        collection = str(collection_of(nnx, type(variable)))
        names, leaves, _ = flat_paths(variable)
        for name, leaf in zip(names, leaves, strict=True):
            place = (collection, *map(str, path), *(name.split("/") if name else ()))
            node = nested
            for key in place[:-1]:
                node = node.setdefault(key, {})
            node[place[-1]] = leaf
            places.append(place)
    return nested, places


def divided_by(model: nnx.Module) -> dict[str, tuple[Any, ...]]:
    """What a model says of how its parameters are divided: axes of a mesh, by path of a variable.

    As `nnx.with_partitioning` and `nnx.Param(sharding=)` do.
    """
    found = {}
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        told = variable.get_metadata()
        names = told.get("out_sharding", told.get("sharding"))
        if names is not None:
            found["/".join(("params", *map(str, path)))] = tuple(names)
    return found


def leaves_at(variables: Any, places: Sequence[tuple[str, ...]]) -> list[Any]:
    """The leaves at the places that `collections_of` tells, of a state or of dictionaries.

    Raises:
        KeyError: that names one that is missing.
    """
    paths, leaves, _ = flat_paths(variables)
    found = dict(zip(paths, leaves, strict=True))
    try:
        return [found["/".join(place)] for place in places]
    except KeyError as error:
        missing = str(error.args[0])
        raise UnknownNameError(
            f"the variables of the NNX model lack {missing!r}{near(missing, found)}; pass those of "
            "reg.nnx_function(model), or nnx.state(model)."
        ) from error
