"""How one kernel is factorized: its sizes, fresh cores, and its record."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morph.kernels.formats import FORMATS
from morph.kernels.planned import PlannedKernel

FORMAT, SIZES = FORMATS["tucker2"]((3, 2, 8, 5), "ssio")
KERNEL = PlannedKernel(
    path="conv/kernel",
    roles="ssio",
    format=FORMAT,
    sizes={**SIZES, "r_in": 4, "r_out": 3},
    error=0.1,
    costs={"flops": (480.0, 119.0)},
    notes=("by hand",),
)


def test_sizes_by_hand():
    assert KERNEL.shape == (3, 2, 8, 5)
    assert KERNEL.ranks == {"r_in": 4, "r_out": 3}
    assert KERNEL.parameters == (3 * 2 * 8 * 5, 8 * 4 + 3 * 2 * 4 * 3 + 3 * 5)
    made = jax.eval_shape(lambda cores: cores.dense(), KERNEL.struct(jnp.bfloat16))
    assert (made.shape, made.dtype) == (KERNEL.shape, jnp.bfloat16)


def test_fresh_cores_have_the_variance_of_what_was_drawn():
    drawn = 0.3 * jnp.asarray(np.random.default_rng(0).normal(size=KERNEL.shape), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 200)
    made = jax.jit(jax.vmap(lambda key: KERNEL.draw(drawn, key).dense()))(keys)
    assert float(made.std()) == pytest.approx(float(drawn.std()), rel=0.05)


def test_a_kernel_of_another_shape_is_refused():
    other = jnp.ones((3, 2, 5, 8))
    for make in (KERNEL.decompose, lambda kernel: KERNEL.draw(kernel, jax.random.key(0))):
        with pytest.raises(ValueError, match=r"shape \[3, 2, 5, 8\], planned for \[3, 2, 8, 5\]"):
            make(other)


def test_a_record_is_plain_data_and_back():
    assert PlannedKernel.from_json("conv/kernel", KERNEL.to_json()) == KERNEL
