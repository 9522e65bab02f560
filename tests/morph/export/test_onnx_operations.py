"""A primitive means in ONNX what it means in JAX, or is refused with the reason."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from morph.export import ExportError, onnx
from morph.export.onnx_operations import RULES

pytest.importorskip("onnx")


pytest.importorskip("onnxruntime")


X = np.random.default_rng(1).uniform(0.1, 0.9, (4, 5, 3)).astype(np.float32)


# What no layer of `Everything` is made of.
FUNCTIONS = {
    "powers": lambda x: x**3 + jnp.sqrt(x) + lax.rsqrt(x) + x**1.5 + jnp.square(x),
    "curves": lambda x: jnp.sin(x) + jnp.cos(x) + jnp.log(x) + jnp.log1p(x) + jnp.expm1(x),
    "errors": lambda x: lax.erf(x) + lax.erfc(x) + jnp.tanh(x) + nn.sigmoid(x),
    "steps": lambda x: jnp.floor(3 * x) + jnp.ceil(2 * x) + jnp.sign(x - 0.5) + jnp.abs(x - 0.5),
    "choices": lambda x: jnp.where((x > 0.5) & ~(x >= 0.8) | (x != x), x, -x),
    "clamp": lambda x: lax.clamp(0.3, x, 0.6) + jnp.minimum(x, 0.5),
    "comparisons": lambda x: (x < 0.4).astype(np.float32) + (x <= x) * x + (x == x),
    "reductions": lambda x: x.max(1) + x.min(1) + jnp.prod(x, 1),
    "positions": lambda x: (jnp.argmax(x, 1) + jnp.argmin(x, 1)).astype(np.float32),
    "sums": lambda x: jnp.cumsum(x, 1)[:, ::2],
    "moves": lambda x: jnp.flip(jnp.pad(x, ((0, 0), (1, 2), (0, 1)), constant_values=2.0), 1),
    "parts": lambda x: jnp.split(x, [2], 1)[1] - lax.slice_in_dim(x, 0, 3, axis=1),
    "counts": lambda x: x + jnp.arange(5.0)[None, :, None],
    "wide": lambda x: jnp.broadcast_to(x[:, None], (x.shape[0], 2, 5, 3)),
    "rows": lambda x: jnp.arange(12.0).reshape(6, 2)[(x[:, 0] * 6).astype(np.int32)],
    "shuffles": lambda x: x[:, jnp.asarray([4, 0, 3])] + x[:, :3][..., jnp.asarray([1, 2, 0])],
    "product": lambda x: jnp.einsum("nij,nkj->nik", x, x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.promotes
def test_a_primitive_means_in_onnx_what_it_means_in_jax(name, tmp_path):
    fn = FUNCTIONS[name]
    written = onnx.to_onnx(lambda _, x: fn(x), {"unused": X}, X[:1], tmp_path / "a.onnx")
    assert written.batch is None, written.note
    np.testing.assert_allclose(onnx.load(written.path)(X), fn(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("fn", "why"),
    [
        (lambda x: lax.conv_transpose(x, X[:, :3], (2,), "SAME"), "transposed convolution"),
        (lambda x: lax.pad(x, 0.0, [(0, 0, 0), (0, 0, 1), (0, 0, 0)]), "between elements"),
        (lambda x: x[:, jnp.asarray([0, 2]), jnp.asarray([1, 2])], "whole rows"),
    ],
)
def test_what_a_rule_does_not_cover_says_why(fn, why, tmp_path):
    with pytest.raises(ExportError, match=why):
        onnx.to_onnx(lambda _, x: fn(x), {"unused": X}, X, tmp_path / "a.onnx")


def test_rules_are_keyed_by_primitives_that_exist():
    assert all(primitive.name for primitive in RULES)
