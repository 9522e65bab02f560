"""Elementwise primitives mean in ONNX what they mean in JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def whole(x):
    return (x * 20 - 9).astype(jnp.int32)


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
    "relu6": lambda x: nn.relu6(x * 9 - 3),
    "selu": lambda x: jax.nn.selu(x - 0.5),
    "celu": lambda x: jax.nn.celu(x - 0.5),
    "glu": lambda x: nn.glu(jnp.concatenate([x, 1 - x], -1)),
    "gelu of erf": lambda x: nn.gelu(x, approximate=False),
    "mish": lambda x: jax.nn.mish(x),
    "squareplus": lambda x: jax.nn.squareplus(x),
    "sinc": lambda x: jnp.sinc(x),
    "hypot": lambda x: jnp.hypot(x, 2 * x),
    "trunc": lambda x: jnp.trunc(x * 9 - 4),
    "parts of numbers": lambda x: jnp.modf(x * 9 - 4),
    "divmod": lambda x: jnp.divmod(x * 9 - 4, 2.0),
    "nan to num": lambda x: jnp.nan_to_num(jnp.log(x - 0.5)),
    "heaviside": lambda x: jnp.heaviside(x - 0.5, 0.5),
    "power of integers": lambda x: x ** whole(x),
    "square root": lambda x: x**0.5,
    "power below zero": lambda x: x**-2,
    "decimals": lambda x: jnp.round(x, 2),
    "log10": lambda x: jnp.log10(x),
    "logaddexp2": lambda x: jnp.logaddexp2(x, -x),
    "one over zero": lambda x: lax.rsqrt(jnp.floor(x)) + jnp.log(jnp.floor(x)),
    "zero by zero": lambda x: jnp.floor(x) / jnp.floor(x),
    "mod zero": lambda x: x % 0.0,
    "nan in a clip": lambda x: jnp.clip(jnp.log(x - 0.5), -1, 1),
    "large": lambda x: nn.sigmoid(x * 200 - 100) + jnp.tanh(x * 200) + jnp.expm1(x * -100),
    "less in the order of all": lambda x: lax.lt_to_p.bind(jnp.where(x > 0.5, x, jnp.nan), -x * 0),
    "not more in the order of all": lambda x: lax.le_to_p.bind(jnp.floor(x), -jnp.floor(x)),
    "bf16 precision": lambda x: lax.reduce_precision(x, 8, 7),
    "derivative": lambda x: jax.grad(lambda x: (jnp.tanh(x) ** 2).sum())(x),
    "tangent": lambda x: jax.jvp(jnp.sin, (x,), (x,))[1],
    "remat": jax.checkpoint(lambda x: jnp.sin(x)),
    "barrier": lambda x: lax.optimization_barrier(x * 2.0),
}  # fmt: skip


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
    "sign": lambda x: jnp.sign(whole(x)) + jnp.abs(whole(x)) - -whole(x),
    "clip": lambda x: jnp.clip(whole(x), -3, 4),
    "int8 minimum": lambda x: jnp.minimum(whole(x).astype(jnp.int8), jnp.int8(2)),
    "below zero": lambda x: whole(x) // -3 + whole(x) % -3,
    "greatest divisor": lambda x: jnp.gcd(whole(x), 6),
    "int8 wraps": lambda x: (x * 100).astype(jnp.int8) * jnp.int8(3),
    "int32 wraps": lambda x: (x * 2e9).astype(jnp.int32) * 3,
    "uint8 minus": lambda x: -(x * 250).astype(jnp.uint8),
    "uint8 division": lambda x: (x * 250).astype(jnp.uint8) // jnp.uint8(7),
    "uint32 division": lambda x: (x * 4e9).astype(jnp.uint32) // jnp.uint32(7),
    "uint32 compared": lambda x: (x * 4e9).astype(jnp.uint32) > jnp.uint32(3000000000),
    "uint32 of floats": lambda x: (x * 9 - 4).astype(jnp.uint32),
    "uint16 bits": lambda x: whole(x).astype(jnp.uint16) ^ jnp.uint16(77),
    "one of three": lambda x: lax.select_n(whole(x) % 3, whole(x), -whole(x), 2 * whole(x)),
}
TRUTHS = {
    "choices": lambda x: jnp.where((x > 0.5) & ~(x >= 0.8) | (x != x), x, -x),
    "where of truths": lambda x: jnp.where(x > 0.5, x > 0.3, x < 0.2),
    "xor": lambda x: (x > 0.5) ^ (x < 0.7),
    "as numbers": lambda x: (x > 0.5) * 2.0 + (x <= x) * x + (x == x),
    "truths compared": lambda x: (x > 0.5) < (x > 0.2),
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
