"""Kernels to decompose, and random cores."""

import jax
import jax.numpy as jnp
import numpy as np

from morph.kernels.factorized import Factorized, is_factorized
from morph.kernels.formats import FORMATS

KINDS = sorted(FORMATS)
TREES = [kind for kind in KINDS if kind != "cp"]


def convolution() -> np.ndarray:
    h, w, i, o = np.indices((3, 3, 8, 12)).astype(float)
    waves = np.sin(0.5 * h + 0.3 * w * i + 0.2 * o) + np.cos(0.7 * i * o / 5 + 0.4 * h)
    return waves + 0.1 * np.sin(1.3 * h * w * i * o + 0.7 * i)


def random(shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


RNG = np.random.default_rng(0)


def normal(*shape, dtype=np.float32):
    return jnp.asarray(RNG.standard_normal(shape, np.float32).astype(dtype))


def factorized(kind, shape, roles, rank=3, dtype=np.float32):
    """Random cores, all ranks at most `rank`."""
    format, sizes = FORMATS[kind](shape, roles)
    sizes = {n: min(size, rank) if n in format.bonds else size for n, size in sizes.items()}
    cores = tuple(normal(*core, dtype=dtype) for core in format.core_shapes(sizes))
    return Factorized(cores=cores, format=format)


def dense(tree):
    """With every factorized leaf as the kernel that it stands for."""
    return jax.tree.map(
        lambda leaf: leaf.dense() if is_factorized(leaf) else leaf, tree, is_leaf=is_factorized
    )


def assert_close(found, expected, tolerance=2e-5):
    scale = float(jnp.abs(expected).max()) or 1.0
    np.testing.assert_allclose(found / scale, expected / scale, atol=tolerance)
