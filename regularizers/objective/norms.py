"""Norms: one non-negative number per slice of a variable along an axis."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from regularizers.objective.sums import Total, total_here

# (variable, axis, how it is summed) -> the norm of every slice along the axis
Norm: TypeAlias = Callable[[Float[Array | np.ndarray, "..."], int, Total], Float[Array, " n"]]


def rms(
    leaf: Float[Array | np.ndarray, "..."],
    axis: int,
    total: Total = total_here,
    l1_share: float = 0.0,
) -> Float[Array, " n"]:
    """Root mean square of every slice along `axis`: group lasso, in MorphNet's normalisation.

    With an L1 share s it is (1 - s) RMS + s mean |w|. Computed in float32 or wider, so that squares
    of half-precision weights do not overflow; its gradient at a slice of zeros is zero.
    """
    if not isinstance(leaf, jax.core.Tracer):
        return _rms_now(np.asarray(leaf), axis, l1_share)
    wide = widened(leaf)
    count = max(1, wide.size // max(1, wide.shape[axis]))
    norm = root(total(jnp.square(wide), axis) / count)
    if not l1_share:
        return norm
    return (1.0 - l1_share) * norm + l1_share * total(jnp.abs(wide), axis) / count


def _rms_now(leaf: np.ndarray, axis: int, l1_share: float) -> Float[Array, " n"]:
    """`rms` of a value at hand: NumPy compiles nothing, where JAX would for every shape."""
    wide = leaf.astype(np.promote_types(leaf.dtype, np.float32), copy=False)
    flat = wide.reshape(math.prod(wide.shape[:axis]), wide.shape[axis], -1)  # [before, n, after]
    count = max(1, flat.shape[0] * flat.shape[2])
    norm = np.sqrt(np.einsum("bna,bna->n", flat, flat) / count)
    if l1_share:
        norm = (1.0 - l1_share) * norm + l1_share * np.abs(flat).sum((0, 2)) / count
    return jax.device_put(norm.astype(wide.dtype))


def root(square: Float[Array, " n"]) -> Float[Array, " n"]:
    """The square root, with gradient zero at zero."""
    is_zero = square == 0.0
    return jnp.where(is_zero, 0.0, jnp.sqrt(jnp.where(is_zero, 1.0, square)))


def is_half(leaf: Any) -> bool:
    """Whether its numbers are floats of less than 32 bits: too coarse for a small pull."""
    return bool(jnp.issubdtype(leaf.dtype, jnp.floating)) and leaf.dtype.itemsize < 4


def widened(leaf: Any) -> Any:
    """In float32 where it is in half precision."""
    return leaf.astype(jnp.float32) if is_half(leaf) else leaf


def share(left: Float[Array, "*n"], of: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """What is left of non-negative numbers, 0 of zeros."""
    return jnp.where(of > 0.0, left / jnp.where(of > 0.0, of, 1.0), 0.0)
