"""Elementwise primitives mean in ONNX what they mean in JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

FLOATS = {
    "powers": lambda x: x**3 + jnp.sqrt(x) + lax.rsqrt(x) + x**1.5 + jnp.square(x),
    "exp2": lambda x: jnp.exp2(x) + jnp.log2(x),
    "curves": lambda x: jnp.sin(x) + jnp.cos(x) + jnp.log(x) + jnp.tan(x),
    "inverse": lambda x: jnp.arcsin(x) + jnp.arccos(x) + jnp.arctan(x) + jnp.arctanh(x),
    "hyperbolic": lambda x: jnp.sinh(x) + jnp.cosh(x) + jnp.arcsinh(x) + jnp.arccosh(x + 1),
    "errors": lambda x: lax.erf(x) + lax.erfc(x) + jnp.tanh(x) + nn.sigmoid(x),
    "expm1": lambda x: jnp.expm1(x * 1e-4) * 1e4 + jnp.expm1(x),
    "log1p": lambda x: jnp.log1p(x * 1e-5) * 1e5 + jnp.log1p(x * 1e5) + jnp.log1p(-x),
    "cbrt": lambda x: jnp.cbrt(x - 0.5),
    "atan2": lambda x: jnp.arctan2(x - 0.5, x[:, ::-1] - 0.4),
    "atan2 on the axis": lambda x: jnp.arctan2(x - 0.5, x * 0) + jnp.arctan2(x * 0, x - 0.5),
    "steps": lambda x: jnp.floor(3 * x) + jnp.ceil(2 * x) + jnp.sign(x - 0.5) + jnp.abs(x - 0.5),
    "round": lambda x: jnp.round(x * 5 - 2),
    "round away": lambda x: lax.round(jnp.floor(x * 9) / 2, lax.RoundingMethod.AWAY_FROM_ZERO),
    "clamp": lambda x: lax.clamp(0.3, x, 0.6) + jnp.minimum(x, 0.5),
    "rem": lambda x: lax.rem(x * 5 - 2, 1.5),
    "mod": lambda x: (x * 5 - 2) % 1.5,
    "floor division": lambda x: (x * 9 - 4) // 2.0,
    "a nan in a maximum": lambda x: jnp.maximum(jnp.log(x - 0.5), 0.0),
    "is finite": lambda x: jnp.isfinite(jnp.log(x - 0.5)),
    "is nan": lambda x: jnp.isnan(jnp.log(x - 0.5)),
    "is infinite": lambda x: jnp.isinf(1 / jnp.floor(x * 2)),
    "gelu": lambda x: nn.gelu(x) + nn.elu(x) + nn.softplus(x),
    "swish": lambda x: nn.hard_swish(x) + nn.log_sigmoid(x),
    "logaddexp": lambda x: jnp.logaddexp(x, -x),
    "precision": lambda x: lax.reduce_precision(x, 5, 10),
    "remat": jax.checkpoint(lambda x: jnp.sin(x)),
    "barrier": lambda x: lax.optimization_barrier(x * 2.0),
}  # fmt: skip


def whole(x):
    return (x * 20 - 9).astype(jnp.int32)


INTEGERS = {
    "int mod": lambda x: whole(x) % 3,
    "int floor division": lambda x: whole(x) // 3,
    "int division by zero": lambda x: lax.div(whole(x), whole(x) // 4),
    "int remainder by zero": lambda x: lax.rem(whole(x), whole(x) // 4),
    "bits": lambda x: whole(x) & 6 | ~whole(x) ^ 5,
    "shift left": lambda x: whole(x) << 2,
    "shift too far": lambda x: whole(x) << 40,
    "shift right": lambda x: whole(x) >> 2,
    "shift right logical": lambda x: lax.shift_right_logical(whole(x), 3),
    "shift int8": lambda x: whole(x).astype(jnp.int8) >> 1,
    "shift int8 logical": lambda x: lax.shift_right_logical(whole(x).astype(jnp.int8), jnp.int8(2)),
    "shift uint8": lambda x: (x * 250).astype(jnp.uint8) << jnp.uint8(3),
    "uint8 wraps": lambda x: (x * 250).astype(jnp.uint8) + jnp.uint8(100),
    "uint8 below zero": lambda x: (x * 250).astype(jnp.uint8) - jnp.uint8(128),
    "uint32": lambda x: (x * 1000).astype(jnp.uint32) * jnp.uint32(4000000000),
    "int8 of floats": lambda x: (x * 900 - 400).astype(jnp.int8),
    "uint8 of floats": lambda x: (x * 900 - 400).astype(jnp.uint8),
    "power": lambda x: whole(x) ** 3,
    "one of three": lambda x: lax.select_n(whole(x) % 3, whole(x), -whole(x), 2 * whole(x)),
}
TRUTHS = {
    "choices": lambda x: jnp.where((x > 0.5) & ~(x >= 0.8) | (x != x), x, -x),
    "where of truths": lambda x: jnp.where(x > 0.5, x > 0.3, x < 0.2),
    "xor": lambda x: (x > 0.5) ^ (x < 0.7),
    "as numbers": lambda x: (x > 0.5) * 2.0 + (x <= x) * x + (x == x),
    "a truth of numbers": lambda x: jnp.floor(x * 2).astype(bool),
}
HALVES = {
    "bf16": lambda x: jnp.tanh(x.astype(jnp.bfloat16) * 2) + 1,
    "f16": lambda x: jnp.exp(x.astype(jnp.float16)) * 2,
    "there and back": lambda x: x.astype(jnp.bfloat16).astype(jnp.float32) * 2,
}


@pytest.mark.promotes
def test_floats(agree):
    assert agree(FLOATS, rtol=1e-4, atol=2e-6).batch is None


@pytest.mark.promotes
def test_integers_and_truth_values(agree):
    assert agree(INTEGERS | TRUTHS).batch is None


@pytest.mark.promotes
def test_numbers_of_16_bits(agree):
    assert agree(HALVES, rtol=1e-2).batch is None


def test_integers_may_be_what_nothing_divides_by(agree):
    agree({"": lambda x: lax.div(x, x * 0)}, np.ones((2, 3), np.int32))
