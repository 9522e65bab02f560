"""Patches times a kernel are its convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morph.kernels.patches import patches

LAYOUTS = [("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW"), ("HWNC", "WIHO", "CHWN")]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("strides", "padding", "data_dilation", "kernel_dilation"),
    [
        ((1, 1), [(0, 0), (0, 0)], (1, 1), (1, 1)),
        ((2, 3), [(1, 2), (0, 1)], (1, 1), (2, 1)),
        ((1, 2), [(2, 1), (-1, 2)], (2, 3), (1, 2)),
    ],
)
def test_patches_times_a_kernel_are_its_convolution(
    rng, layout, strides, padding, data_dilation, kernel_dilation
):
    sizes = {"N": 2, "C": 3, "H": 7, "W": 8}
    x = rng.normal(size=[sizes[name] for name in layout[0]]).astype(np.float32)
    window = {"I": 3, "O": 4, "H": 3, "W": 2}
    kernel = rng.normal(size=[window[name] for name in layout[1]]).astype(np.float32)
    closed = jax.make_jaxpr(jax.lax.conv_general_dilated, static_argnums=(2, 3, 4, 5, 6))(
        x, kernel, strides, tuple(padding), data_dilation, kernel_dilation, layout
    )
    (eqn,) = closed.eqns
    spec = eqn.params["dimension_numbers"].rhs_spec
    seen = np.asarray(patches(jnp.asarray(x), [kernel.shape[k] for k in spec[2:]], eqn.params))
    found = np.einsum("nhwcij,ocij->nohw", seen, kernel.transpose(spec))
    expected = jax.lax.conv_general_dilated(
        x, kernel, strides, padding, data_dilation, kernel_dilation, layout
    )
    expected = np.asarray(expected).transpose(eqn.params["dimension_numbers"].out_spec)
    np.testing.assert_allclose(found, expected, atol=1e-4)
