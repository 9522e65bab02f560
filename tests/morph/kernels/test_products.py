"""Products, core by core."""

import jax
import jax.numpy as jnp
import pytest
from kernel_cases import KINDS, assert_close, dense, factorized, normal

import morph


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("roles", "shape", "x", "subscripts"),
    [
        ("io", (12, 20), (5, 12), "ni,io->no"),
        ("oi", (20, 12), (3, 5, 12), "bni,oi->bno"),
        ("ioo", (12, 4, 5), (5, 3, 12), "nti,ihd->nthd"),
        ("iio", (4, 5, 12), (5, 3, 4, 5), "nthd,hdo->nto"),
    ],
)
def test_products(kind, roles, shape, x, subscripts):
    variables, x = {"k": factorized(kind, shape, roles)}, normal(*x)

    def multiply(variables, x):
        return jnp.einsum(subscripts, x, variables["k"])

    fn = morph.tensorized(multiply)
    assert_close(fn(variables, x), multiply(dense(variables), x))
    batched = jax.vmap(fn, (None, 0))(variables, x[None])
    assert_close(batched[0], multiply(dense(variables), x))

    def loss(fn):
        return lambda variables: jnp.square(fn(variables, x)).sum()

    found = jax.grad(loss(fn))(variables)
    expected = jax.grad(lambda v: loss(multiply)(dense(v)))(variables)
    for own, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert_close(own, other)
