"""What a network of the corpus is, and how one is made from a module or a function."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from corpus.soundness import fill
from flax import nnx

import regularizers as reg

BATCH_NORM: dict[str, Any] = {"train": True, "mutable": ["batch_stats"]}
DROPOUT: dict[str, Any] = {"train": True, "rngs": {"dropout": jax.random.key(1)}}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A function `fn(variables, *inputs, **static)`, and how it is called.

    Attributes:
        fn: the function.
        variables: filled with random numbers.
        inputs: its further arguments.
        eval: keyword arguments in eval mode.
        train: those in train mode; None if there is no other mode.
    """

    fn: Callable[..., Any]
    variables: Any
    inputs: tuple[Any, ...]
    eval: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] | None = None


def linen(module: nn.Module, *inputs: Any, train: Any = None, **call: Any) -> Case:
    """A Linen module; `call` are keyword arguments of eval mode."""
    keys = {name: jax.random.key(0) for name in ("params", *call.get("rngs", ()))}
    own = {name: value for name, value in call.items() if name not in ("rngs", "mutable")}
    variables = jax.eval_shape(lambda: module.init(keys, *inputs, **own))
    return plain(module.apply, variables, *inputs, train=train, **call)


def from_nnx(model: nnx.Module, *inputs: Any, train: Any = None, **call: Any) -> Case:
    """An NNX module, as a function of its state."""
    fn, variables = reg.nnx_function(model)
    return plain(fn, variables, *inputs, train=train, **call)


def plain(
    fn: Callable[..., Any], variables: Any, *inputs: Any, train: Any = None, **call: Any
) -> Case:
    """A function, and the shapes of its variables (a tuple of sizes is a float32 array)."""
    structs = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf, jnp.float32) if isinstance(leaf, tuple) else leaf,
        variables,
        is_leaf=lambda leaf: isinstance(leaf, tuple),
    )
    filled = fill(structs, np.random.default_rng(0))
    return Case(fn=fn, variables=filled, inputs=inputs, eval=call, train=train)


def normal(*shape: int, seed: int = 0) -> jax.Array:
    """Random numbers as an input."""
    return jax.device_put(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def integers(limit: int, *shape: int, seed: int = 0) -> jax.Array:
    """Random integers below `limit` as an input."""
    return jax.device_put(np.random.default_rng(seed).integers(0, limit, shape).astype(np.int32))
