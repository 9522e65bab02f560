"""What an adaptor of the zoo hands over: a foreign model as a function, its variables, a call."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from flax import linen, nnx

import regularizers as reg


@dataclass(frozen=True, kw_only=True)
class Specimen:
    """One call of one foreign model.

    Attributes:
        fn: a function `fn(variables, *inputs, **static)`.
        variables: its variables, or their shapes; the runner draws their numbers.
        inputs: its further arguments.
        static: keyword arguments.
        gradients: whether gradients are compared as well.
    """

    fn: Callable[..., Any]
    variables: Any
    inputs: tuple[Any, ...]
    static: Mapping[str, Any] = field(default_factory=dict)
    gradients: bool = True


def of_linen(
    module: linen.Module, *inputs: Any, train: Mapping[str, Any] | None = None, **static: Any
) -> Specimen:
    """A Linen module, whose variables are found without computing them.

    Args:
        module: any Linen module.
        *inputs: arrays.
        train: keyword arguments that make it update its batch statistics, instead of `static`.
        **static: keyword arguments of its `__call__`.
    """
    rngs = {name: jax.random.key(i) for i, name in enumerate(("params", "dropout", "default"))}
    variables = jax.eval_shape(lambda: module.init(rngs, *inputs, **static))
    if train is not None:
        static = {**train, "mutable": ["batch_stats"]}
    return Specimen(fn=module.apply, variables=variables, inputs=inputs, static=static)


def of_nnx(model: nnx.Module, *inputs: Any, **static: Any) -> Specimen:
    """An NNX model."""
    fn, variables = reg.nnx_function(model)
    return Specimen(fn=fn, variables=variables, inputs=inputs, static=static)


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal random numbers, e.g. images."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def integers(high: int, *shape: int, seed: int = 0) -> np.ndarray:
    """Random integers, e.g. tokens."""
    return np.random.default_rng(seed).integers(0, high, size=shape).astype(np.int32)
