"""What is known of values while widths are inferred: signs, for maxima; constants, for gathers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from corpus.soundness import compare
from jax import lax

import regularizers as reg

M, N, K = 5, 7, 3


@pytest.fixture
def v(rng):
    shapes = {"a": (M, N), "z": (N, K), "w": (N, N)}
    return {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}


@pytest.fixture
def x(rng):
    return rng.normal(size=(4, M)).astype(np.float32)


def scanned(h):
    """A maximum inside of a loop, over what the loop does not change."""
    top = jnp.abs(h)
    return lax.scan(lambda c, _: (c + top.max(1, keepdims=True), None), h[:, :1] * 0, None, 2)[0]


NOT_NEGATIVE = {
    "absolute": lambda h: jnp.abs(h).max(1, keepdims=True),
    "relu": lambda h: jax.nn.relu(h).max(1, keepdims=True),
    "square": lambda h: jnp.square(h).max(1, keepdims=True),
    "product of itself": lambda h: (h * h).max(1, keepdims=True),
    "even power": lambda h: (h**4).max(1, keepdims=True),
    "root": lambda h: jnp.sqrt(jnp.abs(h)).max(1, keepdims=True),
    "clipped": lambda h: jnp.clip(h, 0.0, 6.0).max(1, keepdims=True),
    "by an exponential": lambda h: (jnp.abs(h) * jnp.exp(h)).max(1, keepdims=True),
    "sum of such": lambda h: (jnp.abs(h) + jax.nn.relu(-h)).max(1, keepdims=True),
    "over all": lambda h: jnp.abs(h).max() * jnp.tanh(h[:, :1] * 0 + 1),
    "infinity norm": lambda h: jnp.linalg.norm(h, jnp.inf, axis=1, keepdims=True),
    "with a floor": lambda h: jnp.maximum(jnp.abs(h).max(1, keepdims=True), 1e-3),
    "with an initial": lambda h: jnp.max(jnp.abs(h), axis=1, keepdims=True, initial=0.0),
    "least of not positive": lambda h: (-jnp.abs(h)).min(1, keepdims=True),
    "in a loop": scanned,
    "in a checkpoint": jax.checkpoint(lambda h: jnp.abs(h).max(1, keepdims=True)),
    "in a branch": lambda h: lax.cond(
        h[0, 0] > 0, lambda h: jnp.abs(h), lambda h: jax.nn.relu(h), h
    ).max(1, keepdims=True),
}
NEGATIVE_OR_NEVER_ZERO = {
    "as it is": lambda h: h.max(1, keepdims=True),
    "tanh": lambda h: jnp.tanh(h).max(1, keepdims=True),
    "least": lambda h: jnp.abs(h).min(1, keepdims=True),
    "sigmoid": lambda h: jax.nn.sigmoid(h).max(1, keepdims=True),
    "less": lambda h: (jnp.abs(h) - 1.0).max(1, keepdims=True),
    "leaky": lambda h: jax.nn.leaky_relu(h).max(1, keepdims=True),
    "odd power": lambda h: (h**3).max(1, keepdims=True),
    "carried by a loop": lambda h: lax.scan(
        lambda c, _: (c - 1.0, c.max(1, keepdims=True)), jnp.abs(h), None, 2
    )[1].sum(0),
    "after a loop": lambda h: lax.fori_loop(0, 2, lambda _, c: c - 1.0, jnp.abs(h)).max(
        1, keepdims=True
    ),
    "in a branch": lambda h: lax.cond(
        h[0, 0] > 0, lambda h: jnp.abs(h), lambda h: h, h
    ).max(1, keepdims=True),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_NEGATIVE)
def test_a_maximum_over_what_cannot_be_negative_is_free(name, v, x):
    def fn(v, x):
        h = x @ v["a"]
        return NOT_NEGATIVE[name](h) * jnp.ones((1, K)) + h @ v["z"]

    v = {k: v[k] for k in ("a", "z")}
    graph = reg.trace_channels(fn, v, x)
    assert graph.groups["a"].exact
    found = compare(fn, v, x)
    assert found.resized == 1
    assert max(found.values, found.gradients) < 1e-5


@pytest.mark.parametrize("name", NEGATIVE_OR_NEVER_ZERO)
def test_any_other_maximum_pins(name, v, x):
    def fn(v, x):
        h = x @ v["a"]
        return NEGATIVE_OR_NEVER_ZERO[name](h) * jnp.ones((1, K)) + h @ v["z"]

    v = {k: v[k] for k in ("a", "z")}
    assert reg.trace_channels(fn, v, x).widths == {}


def test_a_maximum_takes_the_rows_of_a_kernel_along(v, x):
    """Fake quantization to int8: the scale of a kernel's column is its largest entry."""

    def quantized(t, axis):
        scale = jnp.abs(t).max(axis, keepdims=True) / 127 + 1e-9
        return t + lax.stop_gradient(jnp.round(t / scale) * scale - t)

    def fn(v, x):
        h = jax.nn.relu(quantized(x, 1) @ quantized(v["a"], 0))
        h = jax.nn.relu(quantized(h, 1) @ quantized(v["w"], 0))
        return quantized(h, 1) @ quantized(v["z"], 0)

    graph = reg.trace_channels(fn, v, x)
    assert graph.widths == {"a": N, "w": N}
    assert graph.variables["w"].produces == {0, 1}
    found = compare(fn, v, x, gradients=False)
    assert found.resized == 2
    assert found.values < 1e-5
