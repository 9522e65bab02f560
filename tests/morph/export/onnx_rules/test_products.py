"""Products and convolutions mean in ONNX what they mean in JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from morph.export import ExportError, onnx

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

RNG = np.random.default_rng(0)
K = RNG.normal(size=(3, 3, 2)).astype(np.float32)
D = RNG.normal(size=(3, 1, 6)).astype(np.float32)


def conv(x, kernel, stride=1, padding=((1, 1),), **options):
    numbers = ("NWC", "WIO", "NWC")
    return lax.conv_general_dilated(
        x, kernel, (stride,), padding, dimension_numbers=numbers, **options
    )


FUNCTIONS = {
    "plain": lambda x: conv(x, K, 2),
    "groups": lambda x: conv(x, D, feature_group_count=3),
    "cut": lambda x: conv(x, K, padding=((-1, 2),)),
    "transposed": lambda x: lax.conv_transpose(x, K, (2,), "SAME"),
    "transposed wide": lambda x: lax.conv_transpose(x, K, (3,), "VALID", rhs_dilation=(2,)),
    "transposed turned": lambda x: lax.conv_transpose(
        x, K.swapaxes(1, 2), (2,), "SAME", transpose_kernel=True
    ),
    "dilated groups": lambda x: conv(x, D, feature_group_count=3, lhs_dilation=(2,)),
    "dilated and strided": lambda x: conv(x, K, 2, ((1, 2),), lhs_dilation=(3,)),
    "dilated with more around": lambda x: conv(x, K, padding=((5, 4),), lhs_dilation=(2,)),
    "dilated and cut": lambda x: conv(x, K, padding=((-1, -2),), lhs_dilation=(2,)),
    "bf16": lambda x: conv(x.astype(jnp.bfloat16), K.astype(jnp.bfloat16)),
    "product": lambda x: jnp.einsum("nij,nkj->nik", x, x) @ jnp.ones((5, 2)),
    "int8": lambda x: jnp.matmul(
        (x * 100).astype(jnp.int8), jnp.ones((3, 4), jnp.int8), preferred_element_type=jnp.int32
    ),
    "f16": lambda x: x.astype(jnp.float16) @ jnp.ones((3, 4), jnp.float16),
    "outer": lambda x: jax.vmap(jnp.outer)(x[:, 0], x[:, 1]),
    "cross": lambda x: jnp.cross(x, x[:, ::-1]),
    "trace": lambda x: jnp.einsum("nii->n", x[:, :3]),
    "int32": lambda x: (x * 9).astype(jnp.int32) @ jnp.ones((3, 2), jnp.int32),
    "truths": lambda x: (x > 0.5) @ jnp.ones((3, 2), bool),
    "3d": lambda x: lax.conv_general_dilated(
        x[:, None, ..., None],
        jnp.ones((1, 3, 3, 1, 2)),
        (1, 1, 1),
        "SAME",
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
    ),
    "2d dilated": lambda x: lax.conv_general_dilated(
        x[..., None],
        jnp.ones((3, 2, 1, 2)),
        (1, 2),
        "SAME",
        rhs_dilation=(2, 1),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    ),
    "patches": lambda x: lax.conv_general_dilated_patches(
        x[..., None], (2, 2), (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ),
    "masked": lambda x: jax.nn.dot_product_attention(
        *[x[:, :, None]] * 3, mask=x[:, None, :, :1] > 0.3
    ),
    "causal": lambda x: jax.nn.dot_product_attention(*[x[:, :, None]] * 3, is_causal=True),
}


@pytest.mark.promotes
def test_products(agree):
    assert agree(FUNCTIONS, rtol=1e-4).batch is None


def test_kernels_per_example(agree):
    """A kernel that is computed, behind a reshape that transposes; a group for each example."""
    kernels = {"": lambda x: jax.vmap(lambda h, k: conv(h[None], k)[0])(x, x[:, :3, :, None])}
    written = agree(kernels, rtol=1e-4)
    assert (written.batch, written.examples) == (3, "independent")


def test_groups_of_the_batch_are_refused(tmp_path):
    x = np.ones((4, 5, 3), np.float32)
    with pytest.raises(ExportError, match="groups of the batch"):
        onnx.to_onnx(lambda _, x: conv(x, K, batch_group_count=2), {}, x, tmp_path / "a.onnx")
