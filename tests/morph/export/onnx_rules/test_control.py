"""Loops and branches mean in ONNX what they mean in JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def over(x):
    return x.swapaxes(0, 1)


INDEPENDENT = {
    "scan": lambda x: lax.scan(lambda c, a: (jnp.tanh(c + a), c * a), x[:, 0], over(x))[0],
    "reverse": lambda x: over(
        lax.scan(lambda c, a: (jnp.tanh(c + a), c), x[:, 0], over(x), reverse=True)[1]
    ),
    "long": lambda x: lax.scan(
        lambda c, _: (jnp.tanh(c + 0.1 * jnp.roll(c, 1, -1) + 0.1), None), x, None, length=400
    )[0],
    "long, reverse": lambda x: over(
        lax.scan(
            lambda c, a: (jnp.tanh(c + a), c), x[:, 0], jnp.tile(over(x), (300, 1, 1)), reverse=True
        )[1]
    ),
    "counted": lambda x: lax.fori_loop(0, 5, lambda i, c: c + i * x, x),
    "until": lambda x: jax.vmap(
        lambda one: lax.while_loop(lambda c: c.sum() < 20, lambda c: c * 1.5, one)
    )(x),
    "mapped": lambda x: lax.map(lambda r: jnp.sin(r) * 2, x.reshape(-1, 5, 3)),
    "two carried": lambda x: lax.scan(
        lambda c, a: ((c[0] + a, c[1] * a), None), (x[:, 0], x[:, 1]), over(x)
    )[0][1],
    "one of two each": lambda x: jax.vmap(lambda r: lax.cond(r.sum() > 7, jnp.sin, jnp.cos, r))(x),
    "one of three each": lambda x: jax.vmap(
        lambda r: lax.switch((r[0, 0] * 3).astype(jnp.int32), [jnp.sin, jnp.cos, jnp.tanh], r)
    )(x),
    "doubling": lambda x: lax.associative_scan(jnp.add, x, axis=1),
}
MIXED = {
    "until all": lambda x: lax.while_loop(lambda c: c.sum() < 99, lambda c: c * 1.5, x),
    "one of two": lambda x: lax.cond(x.sum() > 3, jnp.sin, jnp.cos, x),
    "one of three": lambda x: lax.switch(
        (x[0, 0, 0] * 9).astype(jnp.int32) - 1, [jnp.sin, jnp.cos, jnp.tanh], x
    ),
    "inside of a loop": lambda x: lax.scan(
        lambda c, _: (lax.cond(c.sum() > 9, lambda c: c / 2, lambda c: c * 1.3, c), c.sum() * 2),
        x,
        None,
        length=400,
    )[1],
}


@pytest.mark.promotes
def test_loops(agree):
    found = dict(INDEPENDENT)
    mapped = found.pop("mapped")
    assert agree(found).batch is None
    agree({"": mapped})


@pytest.mark.promotes
def test_branches(agree):
    written = agree({name: fn for name, fn in MIXED.items() if name != "inside of a loop"})
    assert written.batch is None or written.examples == "mixed"
    agree({"": MIXED["inside of a loop"]}, np.full((2, 2), 0.7, np.float32))
