"""Fresh cores have the variance of the kernel's initializer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_cases import KINDS

from morph.kernels.formats import FORMATS
from morph.kernels.initial import initial_variance, random_factorized


@pytest.mark.parametrize("kind", KINDS)
def test_variance_from_scratch(kind):
    shape, roles = (3, 3, 5, 7), "ssio"
    format, sizes = FORMATS[kind](shape, roles)
    sizes = {**sizes, **{bond: min(sizes[bond], 3) for bond in format.bonds}}
    variance = initial_variance(shape, roles)
    assert variance == 1 / 45
    draw = jax.vmap(lambda key: random_factorized(key, format, sizes, variance).dense())
    drawn = np.asarray(jax.jit(draw)(jax.random.split(jax.random.key(0), 10_000)))
    assert np.mean(drawn**2) == pytest.approx(variance, rel=0.03)
    value = random_factorized(jax.random.key(1), format, sizes, variance, jnp.bfloat16)
    norms = [np.linalg.norm(np.asarray(core, np.float32)) for core in value.cores]
    np.testing.assert_allclose(norms, norms[0], rtol=0.01)
    assert value.dtype == jnp.bfloat16
    assert value.shape == shape
