"""Kernels of fewer bits: values that stand where a kernel stood, as factorized ones do.

A function runs with them through `morph.tensorized` and `morph.compact`. They are pytrees: what a
value trains are its floating-point arrays; masks and codes are integers, which `partition` keeps
out of the way of gradients and optimizers. In place of arrays a value may hold what any tree may:
None, shapes, whatever a transformation puts there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


class Compressed:
    """What all of them have: the kernel that they stand for."""

    def dense(self) -> Array:
        """The kernel, differentiable with respect to what the value trains."""
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the kernel."""
        return jax.eval_shape(self.dense).shape

    @property
    def dtype(self) -> Any:
        """Of the kernel."""
        return jax.eval_shape(self.dense).dtype


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True, eq=False)
class Pruned(Compressed):
    """A kernel of which some weights are zero and stay zero (Han et al. 2015).

    Attributes:
        kernel: all weights, floating-point; those that are not kept get no gradient.
        kept: which are; bool, of the kernel's shape.
    """

    kernel: Any
    kept: Any

    def dense(self) -> Array:
        """The kernel with zeros."""
        return jnp.where(self.kept, self.kernel, 0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True, eq=False)
class Shared(Compressed):
    """A kernel whose weights are zero or one of a few values (Han et al. 2016).

    The gradient of a shared value is the sum of those of the weights that share it.

    Attributes:
        centroids: the values, floating-point [K].
        codes: for every weight 0, or k for the k-th value; `uint8` or `uint16`.
    """

    centroids: Any
    codes: Any

    def dense(self) -> Array:
        """The kernel."""
        zero = jnp.zeros(1, self.centroids.dtype)
        return jnp.concatenate([zero, jnp.asarray(self.centroids)])[self.codes]


def is_compressed(leaf: Any) -> bool:
    """Whether a leaf is such a value; `is_leaf` for `jax.tree.map`."""
    return isinstance(leaf, Compressed)


def unpacked(tree: Any) -> Any:
    """The tree with arrays where values stood, also inside factorized kernels."""
    return jax.tree.map(
        lambda leaf: leaf.dense() if is_compressed(leaf) else leaf, tree, is_leaf=is_compressed
    )


def partition(tree: Any) -> tuple[Any, Any]:
    """A tree in two of the same structure: what is trained, and integers; None elsewhere.

    Example:
        >>> trained, fixed = partition(params)  # doctest: +SKIP
        >>> jax.grad(lambda trained: loss(joined(trained, fixed)))(trained)  # doctest: +SKIP
    """

    def is_trained(leaf: Any) -> bool:
        return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.inexact))

    return (
        jax.tree.map(lambda leaf: leaf if is_trained(leaf) else None, tree),
        jax.tree.map(lambda leaf: None if is_trained(leaf) else leaf, tree),
    )


def joined(trained: Any, fixed: Any) -> Any:
    """The tree of which `partition` made two."""
    return jax.tree.map(
        lambda one, other: other if one is None else one,
        trained,
        fixed,
        is_leaf=lambda leaf: leaf is None,
    )
