"""A function resized, beside the one that it was, and how near the two are."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

import morph
import regularizers as reg

# float32 sums of other lengths are added in another order. 1e-5 of the largest output is a hundred
# roundings; a gradient is a longer chain of them, and where terms cancel more of it is rounding.
VALUE, GRADIENT = 1e-5, 1e-4


def assert_close(found, expected, tolerance=VALUE):
    """Equal up to `tolerance` of the largest number of the expected tree."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected) if leaf.size)
    assert largest > 0
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * largest)


def draw_alive(graph, rng, share=0.6):
    """Every group keeps at least one channel and loses at least one."""
    alive = {}
    for name, group in graph.groups.items():
        mask = rng.random(group.width) < share
        keep, lose = rng.choice(group.width, 2, replace=False)
        mask[keep], mask[lose] = True, False
        alive[name] = mask
    return alive


def shrink_function(fn, variables, *inputs, alive=None, seed=0):
    """compact(fn), its variables, the masked variables and the architecture."""
    graph = reg.trace_channels(fn, variables, *inputs)
    alive = alive or draw_alive(graph, np.random.default_rng(seed))
    arch = morph.shrink(graph, alive)
    masked = graph.mask(variables, alive)
    return morph.compact(fn, arch), arch.take(masked), masked, arch


def normal(*shape, seed=0):
    return jax.device_put(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def primitives_of(jaxpr):
    found = []
    for eqn in jaxpr.eqns:
        found.append(eqn.primitive)
        for value in eqn.params.values():
            if isinstance(value, Jaxpr | ClosedJaxpr):
                found += primitives_of(getattr(value, "jaxpr", value))
    return found


@jax.custom_jvp
def odd_jvp(x):
    return jnp.sin(x)


@odd_jvp.defjvp
def _(primals, tangents):
    (x,), (t,) = primals, tangents
    return odd_jvp(x), 1000.0 * t * x  # not the derivative of the sine
