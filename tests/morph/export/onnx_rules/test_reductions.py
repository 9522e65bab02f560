"""Reductions and windows mean in ONNX what they mean in JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from morph.export import ExportError, onnx

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

FUNCTIONS = {
    "reductions": lambda x: x.max(1) + x.min(1) + jnp.prod(x, 1) + x.var(1),
    "positions": lambda x: jnp.argmax(x, 1) + jnp.argmin(x, 1),
    "truths": lambda x: (x > 0.5).all(1) | (x > 0.8).any(1),
    "int8": lambda x: (x * 20).astype(jnp.int8).sum(1),
    "uint8": lambda x: (x * 250).astype(jnp.uint8).max(1),
    "int16": lambda x: (x * 20).astype(jnp.int16).sum(1),
    "how many": lambda x: (x > 0.5).sum(1) + jnp.count_nonzero(x < 0.3, axis=1),
    "mean of integers": lambda x: (x * 20).astype(jnp.int32).mean(1),
    "product of integers": lambda x: jnp.prod((x * 3).astype(jnp.int32), 1),
    "f16": lambda x: x.astype(jnp.float16).sum(1),
    "spread": lambda x: x.std(1) + jnp.ptp(x, 1) + jnp.linalg.norm(x, axis=1),
    "without nan": lambda x: jnp.nansum(jnp.log(x - 0.5), 1) + jnp.nanmin(jnp.log(x - 0.5), 1),
    "place of a truth": lambda x: jnp.argmax(x > 0.5, 1) + jnp.argmin((x * 9).astype(jnp.int32), 1),
    "place with ties": lambda x: jnp.argmin(jnp.floor(x * 2), 1),
    "endless": lambda x: jax.nn.logsumexp(jnp.where(x > 2, x, -jnp.inf), axis=1),
    "cumsum of int8": lambda x: jnp.cumsum((x * 100).astype(jnp.int8), 1, dtype=jnp.int8),
    "cumsum": lambda x: jnp.cumsum(x, 1)[:, ::2] + lax.cumsum(x, 1, reverse=True)[:, :3],
    "cumprod": lambda x: jnp.cumprod(x, 1),
    "cummax": lambda x: lax.cummax(jnp.sin(x * 20), 1),
    "cummin": lambda x: lax.cummin((x * 20).astype(jnp.int32), 1, reverse=True),
    "cumlogsumexp": lambda x: lax.cumlogsumexp(x * 9, 1),
    "softmax": lambda x: jax.nn.softmax(x, 1) + jax.nn.logsumexp(x, 1, keepdims=True),
    "max pool": lambda x: nn.max_pool(x, (2,), (1,), "SAME"),
    "mean pool": lambda x: nn.avg_pool(x, (2,), (2,), "SAME"),
    "min pool": lambda x: lax.reduce_window(x, jnp.inf, lax.min, (1, 2, 1), (1, 2, 1), "VALID"),
    "over channels": lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 1, 3), (1, 1, 1), "SAME"),
    "int sum": lambda x: lax.reduce_window(
        (x * 9).astype(jnp.int32), 0, lax.add, (1, 2, 1), (1, 2, 1), "VALID"
    ),
    "int max": lambda x: lax.reduce_window(
        (x * 9).astype(jnp.int32), -(2**31), lax.max, (1, 2, 1), (1, 2, 1), "SAME"
    ),
    "dilated window": lambda x: lax.reduce_window(
        x, 0.0, lax.add, (1, 2, 1), (1, 1, 1), "VALID", window_dilation=(1, 3, 1)
    ),
    "dilated base": lambda x: lax.reduce_window(
        x, -jnp.inf, lax.max, (1, 2, 1), (1, 1, 1), "SAME", base_dilation=(1, 2, 1)
    ),
    "pool of f16": lambda x: nn.avg_pool(x.astype(jnp.float16), (2,)),
    "over both": lambda x: lax.reduce_window(
        x, -jnp.inf, lax.max, (1, 3, 2), (1, 2, 1), [(0, 0), (1, 1), (1, 0)]
    ),
}


@pytest.mark.promotes
def test_reductions(agree):
    assert agree(FUNCTIONS).batch is None


def test_bits_are_refused(tmp_path):
    x = np.ones((2, 3), np.int32)
    with pytest.raises(ExportError, match=r"cannot write reduce_or in .*: a reduction of bits"):
        onnx.to_onnx(lambda _, x: lax.reduce_or(x, (1,)), {}, x, tmp_path / "a.onnx")
