"""Signs of results: what is said of every primitive holds for numbers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from regularizers.channels.exactness import Signs, find_inexact
from regularizers.channels.inference import Inference
from regularizers.primitives.signs import (
    ANY,
    NEGATIVE,
    NOT_ABOVE,
    NOT_BELOW,
    POSITIVE,
    UNREACHED,
    ZERO,
    sign_of,
)

# Numbers of each sign, none of which any function below takes out of its domain.
NUMBERS = {
    NEGATIVE: [-0.75, -0.5],
    ZERO: [0.0],
    POSITIVE: [0.25, 0.75],
    NOT_ABOVE: [-0.5, 0.0],
    NOT_BELOW: [0.0, 0.5],
    ANY: [-0.5, 0.0, 0.75],
}
UNARY = [
    jnp.abs, jnp.arccos, jnp.arcsin, jnp.arctan, jnp.cbrt, jnp.ceil, jnp.cos, jnp.cosh, jnp.exp,
    jnp.exp2, jnp.expm1, jnp.floor, jnp.isfinite, jnp.log1p, jnp.negative, jnp.round, jnp.sign,
    jnp.sin, jnp.sinh, jnp.square, jnp.tan, jnp.tanh, jax.nn.sigmoid, jax.nn.relu, jax.nn.softplus,
    lax.bessel_i0e, lax.bessel_i1e, lax.erf, lax.erf_inv, lax.erfc,
    lambda x: x**3, lambda x: x**4, lambda x: x**0, lambda x: x.astype(int),
    lambda x: x.astype(bool), lambda x: jnp.abs(x) ** 0.5, lambda x: jnp.clip(x, -0.6, 0.3),
    lambda x: jnp.clip(x, 0.1, 0.3), lambda x: x * x, lambda x: x != x, lambda x: x == x,
    lambda x: x.sum(), lambda x: x.prod(), lambda x: x.max(), lambda x: x.min(),
    lambda x: x[:0].sum(), lambda x: x[:0].prod(), lambda x: jnp.cumsum(x),
    lambda x: jnp.where(x > 0, x, jnp.nan), lambda x: x[::-1], lambda x: jnp.argmax(x),
    lambda x: jnp.pad(x, 1), lambda x: jnp.pad(x, 1, constant_values=-2.0),
    lambda x: jnp.zeros(9).at[jnp.asarray([3, 3])].add(x[0]),
    lambda x: jnp.zeros(9).at[jnp.asarray([3, 4])].set(x[0]),
    lambda x: jnp.zeros(9).at[jnp.asarray([3, 4])].subtract(x[0]),
]  # fmt: skip
BINARY = [
    jnp.add, jnp.subtract, jnp.multiply, jnp.maximum, jnp.minimum, jnp.greater, jnp.greater_equal,
    jnp.less, jnp.less_equal, jnp.equal, jnp.not_equal, jnp.outer, jnp.dot, jnp.logical_and,
    jnp.logical_or, jnp.logical_xor, jnp.arctan2, jnp.remainder,
    lambda x, y: x / (y + jnp.where(y == 0, 1.0, 0.0)),
    lambda x, y: jnp.abs(x) ** jnp.abs(y),
    lambda x, y: jnp.where(x > 0, x, y),
    lambda x, y: jnp.concatenate([x, y]),
]  # fmt: skip


def sign_found(fn, values, signs):
    closed = jax.make_jaxpr(fn)(*values)
    inference = Inference()
    body = inference.run(closed, [inference.fresh_axes(x.shape) for x in values])
    (out,) = body.jaxpr.outvars
    return find_inexact(body, (), [Signs(sign) for sign in signs]).signs[id(body)][out].whole


def combinations(fns, arity):
    return [
        pytest.param(fn, id=f"{getattr(fn, '__name__', '')}{i}-{arity}") for i, fn in enumerate(fns)
    ]


@pytest.mark.promotes
@pytest.mark.parametrize("fn", combinations(UNARY, 1) + combinations(BINARY, 2))
def test_no_number_has_a_sign_that_was_not_said(fn):
    arity = 2 if fn in BINARY else 1
    for signs in itertools.product(NUMBERS, repeat=arity):
        longest = max(len(NUMBERS[sign]) for sign in signs)
        values = [np.resize(np.float32(NUMBERS[sign]), longest) for sign in signs]
        with jax.numpy_rank_promotion("allow"):
            found = sign_of(fn(*map(jnp.asarray, values)))
            said = sign_found(fn, values, signs)
        said |= ZERO if said & UNREACHED else 0
        assert found & ~said == 0, signs
