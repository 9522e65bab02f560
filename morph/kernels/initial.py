"""Cores from scratch, whose product has the variance that a dense kernel would start with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from morph.kernels.factorized import Factorized, Format


def initial_variance(shape: Sequence[int], roles: str) -> float:
    """The variance of Flax's initializer of dense layers and convolutions: one over the fan-in.

    That is `lecun_normal` (LeCun et al. 1998), with the inputs and the window in the fan-in.

    Args:
        shape: of the kernel.
        roles: one letter an axis; see `morph.kernels.formats`.

    Example:
        >>> initial_variance((3, 3, 8, 16), "ssio") == 1 / 72
        True
    """
    return 1.0 / math.prod(n for n, role in zip(shape, roles, strict=True) if role in "si")


def random_factorized(
    key: Any,
    format: Format,
    sizes: Mapping[str, int],
    variance: float,
    dtype: Any = jnp.float32,
) -> Factorized:
    """A factorized kernel of independent cores, each of normal numbers scaled to a given norm.

    An entry of the kernel is a sum over all bonds of products of uncorrelated numbers, one from
    each core: its variance is the product of the cores' variances and of the ranks, exactly. All
    cores get the same norm, as `factorize` leaves them: gradient descent keeps what their squared
    norms differ by. Without the scaling one small core, a single number where a width is prime,
    would decide how large the whole kernel is.

    Args:
        key: a random key of JAX.
        format: how the cores make the kernel.
        sizes: the length of every label, with the ranks.
        variance: of every entry of the kernel; see `initial_variance`.
        dtype: of the cores.

    Example:
        >>> format, sizes = FORMATS["svd"]((64, 32), "io")
        >>> value = random_factorized(jax.random.key(0), format, {**sizes, "r": 8}, 1 / 64)
        >>> value.shape, value.parameters
        ((64, 32), 768)
    """
    shapes = format.core_shapes(sizes)
    lengths = [math.prod(shape) for shape in shapes]
    logs = math.log(variance) - sum(math.log(sizes[bond]) for bond in format.bonds)
    norm = math.exp((logs + sum(map(math.log, lengths))) / len(shapes) / 2.0)
    keys = jax.random.split(key, len(shapes))
    cores = [jax.random.normal(one, shape) for one, shape in zip(keys, shapes, strict=True)]
    cores = [(core * (norm / jnp.linalg.norm(core.ravel()))).astype(dtype) for core in cores]
    return Factorized(cores=tuple(cores), format=format)
