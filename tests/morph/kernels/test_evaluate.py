"""Functions with factorized leaves: lookups, loops, and where a kernel is dense."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_cases import KINDS, assert_close, dense, factorized, normal

import morph
from morph.kernels.factorized import Factorized
from morph.kernels.formats import FORMATS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "look",
    [
        lambda table, i: table[i],
        lambda table, i: jnp.take(table, i, axis=0),
        lambda table, i: jnp.take(table, i, axis=1, mode="clip"),
    ],
)
def test_lookups(kind, look):
    variables = {"k": factorized(kind, (30, 24), "io")}
    indices = jnp.asarray([[0, 5, 29], [-1, 7, 40]])
    found = morph.tensorized(lambda v, i: look(v["k"], i))(variables, indices)
    np.testing.assert_allclose(found, look(variables["k"].dense(), indices), atol=1e-4)


def test_loops_branches_and_remat_take_factorized_kernels():
    variables = {
        "stack": Factorized(
            cores=(normal(4, 6, 2), normal(4, 2, 6)),
            format=FORMATS["svd"]((6, 6), "io")[0].stacked(0),
        ),
        "one": factorized("tt", (6, 6), "io"),
    }

    def fn(variables, x):
        def layer(x, kernel):
            return jax.checkpoint(lambda x, k: jnp.tanh(x @ k))(x, kernel), None

        x, _ = jax.lax.scan(layer, x, variables["stack"])
        x = jax.lax.cond(x.sum() > 0, lambda x, k: x @ k, lambda x, k: x @ k.T, x, variables["one"])
        return jax.lax.fori_loop(0, 3, lambda _, x: jnp.tanh(x @ variables["one"]), x)

    x = normal(3, 6)
    tensorized = morph.tensorized(fn)
    assert_close(tensorized(variables, x), fn(dense(variables), x))
    text = str(jax.make_jaxpr(tensorized)(variables, x))
    assert "scan" in text
    assert "4,6,6" not in text.replace(" ", "")  # the stack was never made dense


def test_elsewhere_a_kernel_is_dense():
    variables = {"k": factorized("svd", (4, 6), "io")}

    @jax.custom_jvp
    def double(k):
        return 2 * k

    double.defjvp(lambda primals, tangents: (double(*primals), 3 * tangents[0]))
    fn = morph.tensorized(lambda v, x: x @ (double(v["k"]) / jnp.linalg.norm(v["k"])))
    x = normal(2, 4)
    k = variables["k"].dense()
    assert_close(fn(variables, x), 2 * x @ k / jnp.linalg.norm(k))
