"""A network as three pure functions, whatever framework it was written in."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import flax.linen as nn
import jax
from flax import nnx

from morph.architecture.architecture import Architecture
from morph.resize.compact import compact
from morph.resize.initialize import init
from regularizers.channels.calls import joined_path
from regularizers.channels.flax_values import framework_of
from regularizers.checks import FUNCTION, NAME, NONE, Rule, a, check, checked
from regularizers.errors import InputError
from regularizers.nnx import divided_by, nnx_function

Variables: TypeAlias = dict[str, Any]  # by collection: {"params": ..., "batch_stats": ...}


@dataclass(frozen=True, kw_only=True)
class Network:
    """What training needs of a model. `x` and outputs are arrays, or trees of them.

    Attributes:
        init: `(key, x) -> variables`.
        predict: `(variables, x) -> outputs`, in evaluation mode.
        forward: `(variables, x, key) -> (outputs, updates)`, in training mode; `updates` holds the
            new values of the collections other than `params`.
    """

    init: Callable[[Any, Any], Variables]
    predict: Callable[[Variables, Any], Any]
    forward: Callable[[Variables, Any, Any], tuple[Any, Variables]]

    def __post_init__(self) -> None:
        """Refuses what cannot be called."""
        names = ("init", "predict", "forward")
        check("Network", {n: getattr(self, n) for n in names}, dict.fromkeys(names, FUNCTION))

    def resized(self, architecture: Architecture) -> Network:
        """The network at the widths of an architecture that was inferred from `predict`."""
        return Network(
            init=lambda key, x: init(self.init, architecture, key, x),
            predict=compact(self.predict, architecture),
            forward=compact(self.forward, architecture),
        )


NETWORK = a(Network, "a morph.Network, e.g. of morph.linen_network")
VARIABLES = Rule(
    asked="the variables of a network, a mapping with params",
    kind=lambda value: isinstance(value, Mapping),
    holds=lambda value: "params" in value,
)


def arguments(x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """How a model is called with an input: a tuple by position, a dict by keyword.

    Example:
        >>> arguments({"ids": 1, "mask": 2}), arguments((1, 2)), arguments(1)
        (((), {'ids': 1, 'mask': 2}), ((1, 2), {}), ((1,), {}))
    """
    if isinstance(x, dict):
        return (), x
    return (tuple(x), {}) if isinstance(x, tuple) else ((x,), {})


def _mutable(variables: Mapping[str, Any]) -> list[str]:
    return [name for name in variables if name != "params"]


@checked(
    module=a(nn.Module, "a flax.linen.Module; of NNX take morph.nnx_network"),
    train_kwarg=NAME | NONE,
)
def linen_network(module: nn.Module, *, train_kwarg: str | None = "train") -> Network:
    """A Linen module as a `Network`.

    Args:
        module: called with `x` (a tuple by position, a dict by keyword) and, if `train_kwarg` names
            one, a boolean keyword for the mode.
        train_kwarg: None for a module that is the same in both modes.

    Raises:
        TypeError: if it is no Linen module.
        ValueError: if the module takes no such argument.
    """
    if train_kwarg is not None:
        _check_takes(type(module), train_kwarg)

    def mode(train: bool) -> dict[str, Any]:
        return {train_kwarg: train} if train_kwarg else {}

    def predict(variables: Variables, x: Any) -> Any:
        args, kwargs = arguments(x)
        return module.apply(variables, *args, **kwargs, **mode(False))

    def forward(variables: Variables, x: Any, key: Any) -> tuple[Any, Variables]:
        mutable = _mutable(variables)
        args, kwargs = arguments(x)
        static: dict[str, Any] = {"rngs": {"dropout": key}, **mode(True)}
        if not mutable:
            return module.apply(variables, *args, **kwargs, **static), {}
        outputs, updates = module.apply(variables, *args, **kwargs, mutable=mutable, **static)
        return outputs, dict(updates)

    def initialise(key: Any, x: Any) -> Variables:
        args, kwargs = arguments(x)
        return dict(module.init(key, *args, **kwargs, **mode(False)))

    return Network(init=initialise, predict=predict, forward=forward)


def _check_takes(kind: type, train_kwarg: str) -> None:
    """Raises a ValueError if a class of models takes no such argument in its call."""
    accepted = inspect.signature(kind.__call__).parameters
    by_name = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in accepted.values())
    if train_kwarg not in accepted and not by_name:
        raise InputError(
            f"{kind.__name__}.__call__ takes no argument {train_kwarg!r}; it takes "
            f"{', '.join(name for name in accepted if name != 'self')}. Name the one that "
            "switches to train mode, or pass train_kwarg=None if there is none."
        )


def _boxed(variables: Variables, divided: Mapping[str, tuple[Any, ...]]) -> Variables:
    """Parameters with what the model says of how they are divided, in the boxes that Linen has."""

    def boxed(path: Any, leaf: Any) -> Any:
        names = divided.get(joined_path(path))
        return leaf if names is None else nn.Partitioned(leaf, names)

    found: Variables = jax.tree.map_with_path(boxed, variables)
    return found


BUILD = Rule(
    asked="a function of random streams that makes an NNX model: lambda rngs: Model(rngs=rngs)",
    kind=lambda value: callable(value) and not framework_of(value),
)


@checked(build=BUILD, train_kwarg=NAME | NONE)
def nnx_network(
    build: Callable[[nnx.Rngs], nnx.Module], *, train_kwarg: str | None = None
) -> Network:
    """An NNX model as a `Network`.

    Args:
        build: makes the model from its random streams.
        train_kwarg: a boolean keyword of the model's call for the mode, e.g. `"training"`. Without
            one the mode is that of `model.train()` and `model.eval()`, and `train`, where the model
            has that argument.

    Raises:
        TypeError: if a model is given instead of what makes one.
        ValueError: from the network's functions, if the model takes no such argument.
    """

    def built(key: Any) -> nnx.Module:
        with nnx.use_eager_sharding(False):  # a layout says where, and on which mesh
            return build(nnx.Rngs(key))

    @functools.cache
    def function() -> Callable[..., Any]:
        model = built(0)
        if train_kwarg is not None:
            _check_takes(type(model), train_kwarg)
        return nnx_function(model)[0]

    def mode(train: bool) -> dict[str, Any]:
        return {"train": train, **({train_kwarg: train} if train_kwarg else {})}

    def predict(variables: Variables, x: Any) -> Any:
        args, kwargs = arguments(x)
        return function()(nn.meta.unbox(variables), *args, **kwargs, **mode(False))

    def forward(variables: Variables, x: Any, key: Any) -> tuple[Any, Variables]:
        mutable = _mutable(variables)
        args, kwargs = arguments(x)
        static: dict[str, Any] = {"mutable": mutable, "rngs": {"dropout": key}, **mode(True)}
        result = function()(nn.meta.unbox(variables), *args, **kwargs, **static)
        return result if mutable else (result, {})

    def initialise(key: Any, x: Any) -> Variables:
        del x
        model = built(key)
        return _boxed(nnx_function(model)[1], divided_by(model))

    return Network(init=initialise, predict=predict, forward=forward)
