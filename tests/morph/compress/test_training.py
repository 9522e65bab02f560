"""Training through compressed kernels: what is shared stays shared, what is zero stays zero."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.networks.mlp import MLP
from morph.compress.training import accuracy_of, train
from morph.kernels.compressed import Pruned, Shared
from morph.network import linen_network
from morph.training.data import Batch


@pytest.fixture(scope="module")
def case():
    """A network, its variables, and four clusters to tell apart."""
    generator = np.random.default_rng(0)
    y = generator.integers(4, size=256)
    x = generator.normal(size=(4, 3, 3, 1))[y] + 0.3 * generator.normal(size=(256, 3, 3, 1))
    network = linen_network(MLP(num_classes=4, widths=(11, 7)))
    data = Batch(x.astype(np.float32), y.astype(np.int32))
    return network, jax.jit(network.init)(jax.random.key(0), data.x[:1]), data


@pytest.mark.promotes
def test_values_are_trained_and_keep_their_form(case):
    network, variables, data = case
    first, second, last = variables["params"]
    params = dict(variables["params"])
    kernel = params[first]["kernel"]
    kept = jax.random.bernoulli(jax.random.key(1), 0.5, kernel.shape)
    params[first] = {**params[first], "kernel": Pruned(kernel=kernel, kept=kept)}
    codes = jnp.digitize(params[second]["kernel"], jnp.asarray([-0.2, 0.0, 0.2])).astype(jnp.uint8)
    shared = Shared(centroids=jnp.asarray([-0.1, 0.1, 0.3]), codes=codes)
    params[second] = {**params[second], "kernel": shared}
    before = accuracy_of(network, {"params": params}, data)
    after, _ = train(network, {"params": params}, data, optax.adam(1e-2), steps=60, batch_size=32)
    trained = after["params"]
    assert accuracy_of(network, after, data) > max(0.9, before)
    np.testing.assert_array_equal(trained[first]["kernel"].kept, kept)
    np.testing.assert_array_equal(trained[first]["kernel"].kernel[~kept], kernel[~kept])
    np.testing.assert_array_equal(trained[second]["kernel"].codes, codes)
    assert not np.array_equal(trained[second]["kernel"].centroids, shared.centroids)
    assert not np.array_equal(trained[last]["kernel"], params[last]["kernel"])
    again, _ = train(network, {"params": params}, data, optax.adam(1e-2), steps=60, batch_size=32)
    jax.tree.map(np.testing.assert_array_equal, after, again)
