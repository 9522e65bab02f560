"""Augmentations of image batches, as functions of a key that run on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Images = Float[Array, "n h w c"]
Augmentation = Callable[[Any, Images], Images]


def flip(key: Any, x: Images) -> Images:
    """Mirrors every other image, left to right."""
    mirrored = jax.random.bernoulli(key, 0.5, (len(x), 1, 1, 1))
    return jnp.where(mirrored, x[:, :, ::-1], x)


def crop(key: Any, x: Images) -> Images:
    """Moves every image by up to an eighth of its size; zeros come in (He et al. 2016)."""
    _, height, width, channels = x.shape
    pad = max(1, height // 8), max(1, width // 8)
    padded = jnp.pad(x, ((0, 0), (pad[0], pad[0]), (pad[1], pad[1]), (0, 0)))
    most = jnp.asarray([2 * pad[0] + 1, 2 * pad[1] + 1])
    corners = jax.random.randint(key, (len(x), 2), 0, most[None])

    def window(image: Any, corner: Any) -> Any:
        start = (corner[0], corner[1], 0)
        return jax.lax.dynamic_slice(image, start, (height, width, channels))

    return jax.vmap(window)(padded, corners)


def cutout(key: Any, x: Images) -> Images:
    """Sets a square of half the size to zero, anywhere (DeVries and Taylor 2017)."""
    inside = jnp.ones((), bool)
    for axis, axis_key in zip((1, 2), jax.random.split(key), strict=True):
        size = x.shape[axis]
        centre = jax.random.randint(axis_key, (len(x), 1), 0, size)
        near = jnp.abs(jnp.arange(size)[None] - centre) <= size // 4  # [n, size]
        inside = inside & jnp.expand_dims(near, (3 - axis, 3))
    return jnp.where(inside, jnp.zeros_like(x), x)


AUGMENTATIONS: Mapping[str, Augmentation] = {"flip": flip, "crop": crop, "cutout": cutout}


def augmented(names: Sequence[str]) -> Augmentation:
    """The augmentations of these names, one after the other."""

    def apply(key: Any, x: Images) -> Images:
        for i, name in enumerate(names):
            x = AUGMENTATIONS[name](jax.random.fold_in(key, i), x)
        return x

    return apply


def mixup(key: Any, x: Any, y: Any, alpha: float) -> tuple[Any, Any, Float[Array, ""]]:
    """Blends every example with its neighbour in the batch (Zhang et al. 2018).

    Args:
        key: a JAX random key.
        x: inputs [n, ...], floating-point arrays.
        y: labels [n, ...], or a tree of them.
        alpha: of the Beta distribution that the share is drawn from.

    Returns:
        The blended inputs, the neighbours' labels, and the share of an example itself, with which
        the losses of both labels are to be blended.
    """
    share = jax.random.beta(key, alpha, alpha, dtype=jax.tree.leaves(x)[0].dtype)

    def neighbours(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.roll(leaf, 1, 0), tree)

    blended = jax.tree.map(lambda own, other: share * own + (1.0 - share) * other, x, neighbours(x))
    return blended, neighbours(y), share
