"""Functions that once were called exact and were not: compact equals masked, or nothing shrinks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import morph
import regularizers as reg

M, N, K, L = 4, 6, 2, 7
KEEP = np.asarray([True, False, True, False, False, True])


def heights(x):
    return x[:, :1] > 0


def segment_max(h):
    return jax.ops.segment_max(h, jnp.asarray([0, 0, 2]), num_segments=4)


CASES = {
    "twice on one axis": lambda h, g, v, x: jnp.concatenate([h, h * 2.0], -1).var(-1) * h.sum(),
    "cosines twice": lambda h, g, v, x: jnp.cos(jnp.concatenate([h, h], -1)).sum(-1),
    "two groups on two axes": lambda h, g, v, x: jnp.cos(h[:, :, None] + g[:, None]).sum((1, 2)),
    "variance of two groups": lambda h, g, v, x: (h[:, :, None] * g[:, None]).var((1, 2)),
    "tanh of minus infinity": lambda h, g, v, x: (
        jnp.tanh(jnp.where(heights(x), h, -jnp.inf)) @ v["b"]
    ),
    "a floor under a mask": lambda h, g, v, x: (
        jnp.maximum(jnp.where(heights(x), h, -jnp.inf).max(0, keepdims=True), -9.0) @ v["b"]
    ),
    "clipped infinity": lambda h, g, v, x: (
        jnp.clip(jnp.where(heights(x), h, jnp.inf), -5.0, 5.0) @ v["b"]
    ),
    "empty segments": lambda h, g, v, x: jnp.tanh(segment_max(h)) @ v["b"],
    "is it finite": lambda h, g, v, x: (
        jnp.where(jnp.isfinite(segment_max(h)), segment_max(h), 1.0) @ v["b"]
    ),
    "folds half where it is zero": lambda h, g, v, x: (
        jax.nn.sigmoid(jnp.where(x[:, :1] > 9, h, -jnp.inf).max(0, keepdims=True)) @ v["b"]
        + v["s"][None]
    ),
}
BROKEN = {
    "zero by zero": lambda h, x: h * jax.lax.rsqrt(jnp.square(h).sum(0, keepdims=True)),
    "logarithm": lambda h, x: jnp.abs(h) * jnp.log(jnp.abs(h)),
    "inverse": lambda h, x: jnp.minimum(h * (1.0 / jnp.abs(h)), 1.0),
    "power": lambda h, x: jnp.abs(h) ** (-jnp.abs(x[:, :1])),
    "standardized": lambda h, x: (h - h.mean(0)[None]) / jnp.std(h, 0)[None],
    "the deviation of some": lambda h, x: h / jnp.where(heights(x), jnp.std(h, 0)[None], 1.0),
    "zero over zero by numbers": lambda h, x: h / (jnp.exp(h) - 1.0),
    "zero over a logarithm": lambda h, x: h / jnp.log(1.0 + h),
    "zero over a sine": lambda h, x: jnp.sin(h) / h,
    "zero over rounded": lambda h, x: h / jnp.round(jax.nn.sigmoid(h) / 2),
    "zero over the largest": lambda h, x: h / jnp.abs(h).max(0)[None],
    "zero over what may be zero": lambda h, x: h / jnp.maximum(h, x[:, :1]),
    "not a number by a root": lambda h, x: h * jax.lax.rsqrt(jnp.var(h, 0)[None]),
    "an inverse cosine": lambda h, x: h * jnp.arccosh(h + 1.5 - 1.0),
    "an inverse hyperbolic tangent": lambda h, x: h * jnp.arctanh(1.0 - jnp.abs(h).sum(0)[None]),
    "the logarithm of one plus minus one": lambda h, x: h * jnp.log1p(-jnp.exp(-jnp.abs(h))),
    "the root of a negative number": lambda h, x: h * jnp.sqrt(h - 0.5),
    "the logarithm of a negative number": lambda h, x: h * jnp.log(jnp.abs(h) * -1.0),
    "the remainder": lambda h, x: jax.lax.rem(x[:, :1] + h, h),
}
FINITE = {
    "with an eps": lambda h, x: h / (jnp.std(h, 0)[None] + 1e-3),
    "with an eps inside": lambda h, x: h / jnp.sqrt(jnp.var(h, 0)[None] + 1e-3),
    "with a floor": lambda h, x: h / jnp.maximum(jnp.std(h, 0)[None], 1e-3),
    "guarded": lambda h, x: h / jnp.where(h == 0, 1.0, h),
    "over one": lambda h, x: h / (1.0 + jnp.abs(h)),
    "over exponentials": lambda h, x: h / (jnp.exp(h) + jnp.exp(-h)),
    "over inputs": lambda h, x: h / x[:, :1],
    "over all channels": lambda h, x: h / jnp.std(h, 1, keepdims=True),
    "softmax over rows": lambda h, x: h * jnp.exp(h) / jnp.exp(h).sum(0)[None],
    "over a number": lambda h, x: h / (3.0 - jnp.exp(h)),
    "over a softplus": lambda h, x: h / jax.nn.softplus(h),
    "times an inverse tangent": lambda h, x: h * jnp.arctanh(0.5 * jnp.tanh(x[:, :1])),
    "segments": lambda h, x: (
        h / jax.ops.segment_sum(jnp.exp(h), jnp.asarray([0, 2, 2]), 4)[jnp.asarray([0, 2, 2])]
    ),
}


@pytest.fixture
def v(rng):
    shapes = {"a": (M, N), "b": (N, K), "c": (M, L), "s": (K,)}
    return {
        name: jax.device_put(rng.normal(size=s).astype(np.float32)) for name, s in shapes.items()
    }


@pytest.fixture
def x(rng):
    return jax.device_put(rng.normal(size=(3, M)).astype(np.float32))


@pytest.mark.parametrize("name", CASES)
def test_compact_equals_masked(name, v, x):
    def fn(v, x):
        out = CASES[name](x @ v["a"], x @ v["c"], v, x)
        return out, (x @ v["a"]) @ v["b"], (x @ v["c"]).sum()

    graph = reg.trace_channels(fn, v, x)
    alive = {
        name: KEEP if group.width == N else np.arange(L) < 5
        for name, group in graph.groups.items()
        if group.width in (N, L) and (group.exact or group.folds)
    }
    masked, folded = graph.mask(v, alive), graph.fold(v, alive)
    arch = morph.shrink(graph, alive, fold=True)
    found = morph.compact(fn, arch)(arch.take(folded), x)
    for one, other in zip(found, fn(masked, x), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_not_finite_is_never_exact(name, v, x):
    graph = reg.trace_channels(lambda v, x: BROKEN[name](x @ v["a"], x) @ v["b"], v, x)
    assert not graph.groups["a"].exact
    assert "not even finite" in graph.groups["a"].why_inexact


@pytest.mark.parametrize("name", FINITE)
def test_what_is_finite_is_exact(name, v, x):
    def fn(v, x):
        return FINITE[name](x @ v["a"], x) @ v["b"]

    graph = reg.trace_channels(fn, v, x)
    assert graph.groups["a"].exact
    masked = graph.mask(v, {"a": KEEP})
    small = morph.compact(fn, morph.shrink(graph, {"a": KEEP}))
    found = small({**masked, "a": masked["a"][:, KEEP], "b": masked["b"][KEEP]}, x)
    np.testing.assert_allclose(found, fn(masked, x), rtol=1e-4, atol=1e-5)


def test_a_bias_that_is_also_an_output_takes_nothing(v, x):
    def fn(v, x):
        return jax.nn.sigmoid(x @ v["a"]) @ v["b"] + v["s"][None], v["s"]

    (group,) = reg.trace_channels(fn, v, x).groups.values()
    assert not group.exact
    assert not group.folds
