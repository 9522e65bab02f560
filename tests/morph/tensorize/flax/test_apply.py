"""Cores to start with: as many as said, with the variance that Flax's own kernels have."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morph.tensorize.flax.apply import Cores

KEY = jax.random.key(0)

# Format, roles, rank, shape, axes of the fan-in, parameters.
STARTS = {
    "svd": ("svd", "io", 3, (20, 6), "si", 60 + 18),
    "tt": ("tt", "io", 3, (16, 24), "si", 18 + 36 + 36 + 12),
    "tucker2": ("tucker2", "ssio", 4, (3, 2, 6, 5), "si", 24 + 96 + 20),
    "tucker": ("tucker", "ssio", 2, (3, 2, 6, 5), "si", 6 + 4 + 12 + 10 + 16),
    "cp": ("cp", "ssio", 5, (3, 2, 6, 5), "si", 5 * (3 + 2 + 6 + 5)),
    "table": ("tt", "io", 3, (24, 16), "o", 18 + 36 + 36 + 12),
}


@pytest.mark.parametrize("name", STARTS)
def test_the_kernel_starts_with_the_variance_of_flax(name):
    """One over the fan-in (LeCun), which `nn.Embed` counts in features."""
    kind, roles, rank, shape, fan_in, parameters = STARTS[name]
    cores = Cores(kind=kind, roles=roles, rank=rank, fan_in=fan_in)
    assert jax.eval_shape(lambda: cores(KEY, shape)).parameters == parameters
    keys = jax.random.split(KEY, 2000)
    kernels = np.asarray(jax.jit(jax.vmap(lambda key: cores(key, shape).dense()))(keys))
    usual = 1 / math.prod(n for n, role in zip(shape, roles, strict=True) if role in fan_in)
    assert abs(kernels.mean()) < 0.02 * math.sqrt(usual)
    assert math.isclose(kernels.var(), usual, rel_tol=0.05)


@pytest.mark.parametrize("flax", [nn.Dense(24), nn.Conv(24, (3,)), nn.Embed(30, 24)])
def test_flax_starts_so(flax):
    """What the initializers of `STARTS` are compared with is what Flax draws."""
    table = isinstance(flax, nn.Embed)
    x = jnp.zeros((1, 2), int) if table else jnp.zeros((1, 2, 30))
    kernel = jax.tree.leaves(jax.jit(flax.init)(KEY, x))[-1]
    usual = 24 if table else kernel.size // 24
    assert math.isclose(float(kernel.var()), 1 / usual, rel_tol=0.1)
