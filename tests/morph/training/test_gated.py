"""A network with gates: what it predicts is what is left when they are folded away."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import morph
import regularizers as reg
from morph.training.gated import CLOCK, MODES, folded, gated_network
from regularizers.errors import InputError
from regularizers.objective import gates

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.relu(nn.Dense(7)(x)))


@pytest.fixture(scope="module")
def traced():
    network = morph.linen_network(Net(), train_kwarg=None)
    return network, reg.trace_channels(network.predict, jax.jit(network.init)(KEY, X), X)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_folded_predicts_the_same(traced, mode):
    network, graph = traced
    gated = gated_network(network, graph, steps=4, mode=mode)
    variables = jax.jit(gated.init)(KEY, X)
    logits = {"Dense_1": jnp.array([-9, 9, -9, 9, 9, -9, 9], jnp.float32)}
    assert {n: v.shape for n, v in variables["params"][gates.NAME].items()} == {"Dense_1": (7,)}
    variables["params"][gates.NAME] = logits
    plain = folded(graph, variables)
    assert set(plain) == {"params"}
    assert gates.NAME not in plain["params"]
    shut = ~plain["params"]["Dense_1"]["kernel"].any(0)
    np.testing.assert_array_equal(shut, np.asarray(logits["Dense_1"]) < 0)
    found, expected = gated.predict(variables, X), network.predict(plain, X)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_clock_counts_and_every_step_draws_anew(traced):
    network, graph = traced
    gated = gated_network(network, graph, steps=4)
    variables = jax.jit(gated.init)(KEY, X)
    one, updates = gated.forward(variables, X, jax.random.key(1))
    other, _ = gated.forward(variables, X, jax.random.key(2))
    assert int(updates[CLOCK]["steps"]) == 1
    assert np.abs(one - other).max() > 0.0


def test_an_unknown_mode(traced):
    with pytest.raises(InputError, match="unknown gate mode 'hard'; known are 'annealed', 'str"):
        gated_network(*traced, steps=4, mode="hard")
