"""Networks of Linen and NNX modules."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import morph

X = jnp.ones((4, 5))


def test_a_linen_module_without_a_train_argument_is_told_what_to_do():
    with pytest.raises(ValueError, match=r"takes no argument 'train'.*train_kwarg=None"):
        morph.linen_network(nn.Dense(3))
    assert morph.linen_network(nn.Dense(3), train_kwarg=None).predict is not None


class Noisy(nnx.Module):
    """Says in its call, by one name or the other, whether it trains."""

    def __init__(self, rngs):
        self.dense, self.norm = nnx.Linear(5, 3, rngs=rngs), nnx.BatchNorm(3, rngs=rngs)

    def run(self, x, noise, rngs):
        x = self.norm(self.dense(x))
        return x + jax.random.normal(rngs.dropout(), x.shape) if noise else x


class Train(Noisy):
    def __call__(self, x, train=True, rngs=None):
        return self.run(x, train, rngs)


class Deterministic(Noisy):
    def __call__(self, x, *, training, rngs=None):
        return self.run(x, training, rngs)


@pytest.mark.parametrize(("kind", "name"), [(Train, None), (Deterministic, "training")])
def test_an_nnx_model_gets_its_mode_by_its_own_name(kind, name):
    network = morph.nnx_network(kind, train_kwarg=name)
    variables = network.init(jax.random.key(0), X)
    one, two = jax.random.split(jax.random.key(1))
    np.testing.assert_array_equal(network.predict(variables, X), network.predict(variables, X))
    trained, updates = network.forward(variables, X, one)
    assert set(updates) == {"batch_stats"}
    assert not np.allclose(trained, network.forward(variables, X, two)[0])


def test_an_nnx_model_without_that_argument_is_told_what_it_takes():
    network = morph.nnx_network(Train, train_kwarg="training")
    variables = network.init(jax.random.key(0), X)
    with pytest.raises(ValueError, match=r"Train\.__call__ takes no argument 'training'.*train"):
        network.predict(variables, X)


def test_models_of_the_other_kind_are_told_apart():
    with pytest.raises(TypeError, match=r"lambda rngs: Model\(rngs=rngs\), found a Train"):
        morph.nnx_network(Train(nnx.Rngs(0)))
    with pytest.raises(TypeError, match=r"of NNX take morph\.nnx_network, found a Train"):
        morph.linen_network(Train(nnx.Rngs(0)))
