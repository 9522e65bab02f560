"""What layers are given: moments of their inputs, and which channels these are."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import regularizers as reg
from morph.pruning.products import channels_along, products


@pytest.fixture(scope="module")
def x():
    return jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 7)), jnp.float32)


def variables_of(**shapes):
    rng = np.random.default_rng(1)
    return {name: jnp.asarray(rng.normal(size=n), jnp.float32) for name, n in shapes.items()}


def found_in(fn, variables, *batches):
    graph = reg.trace_channels(fn, variables, batches[0])
    return graph, products(graph, fn, variables, batches)


def heads(variables, x):
    return jnp.tanh(jnp.einsum("btc,chd->bhdt", x, variables["a"]))


def test_moments_are_those_of_the_inputs_in_the_order_of_the_kernel(x):
    def fn(variables, x):
        return jnp.einsum("bhdt,dhn->btn", heads(variables, x), variables["b"])

    variables = variables_of(a=(7, 2, 5), b=(5, 2, 3))
    graph, found = found_in(fn, variables, x[:1], x[1:])
    assert found.keys() == {"b"}  # of the other the inputs are fixed
    product = found["b"]
    inputs = np.asarray(jnp.moveaxis(heads(variables, x), 3, 1))  # [N, T, 2, 5]
    rows = inputs.swapaxes(2, 3).reshape(12, 10)
    rows = np.concatenate([rows, np.ones((12, 1))], axis=1)
    np.testing.assert_allclose(product.moments, rows.T @ rows / 12, atol=1e-5)
    out = (rows[:, :10] @ product.matrix(variables["b"])).reshape(3, 4, 3)
    np.testing.assert_allclose(out, fn(variables, x), atol=1e-5)
    same = product.kernel(product.matrix(variables["b"]), (5, 2, 3))
    np.testing.assert_allclose(same, variables["b"])
    widths = {graph.variables["b"].axes[k]: n for k, n in enumerate((5, 2))}
    five, two = widths
    own = [channels_along(graph.variables["b"], (0, 1), widths, name) for name in (five, two)]
    np.testing.assert_array_equal(own[0], np.arange(10).reshape(5, 2))
    np.testing.assert_array_equal(own[1], np.arange(10).reshape(5, 2).T)
    np.testing.assert_array_equal(product.rows([np.asarray([0, 3]), np.asarray([1])]), [1, 7])


def test_a_kernel_that_makes_what_it_reads_is_left_out(x):
    def tied(variables, x):
        return nn.relu(x @ variables["a"]) @ variables["a"].T

    _, found = found_in(tied, variables_of(a=(7, 5)), x)
    assert not found
