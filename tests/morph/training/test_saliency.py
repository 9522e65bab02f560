"""Saliency of a network as it is: the mean squared slope of the loss along every channel."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import morph
import regularizers as reg
from morph.training.data import Batch
from morph.training.loop import Loop
from morph.training.losses import cross_entropy
from morph.training.saliency import make_saliency
from morph.training.step import TrainState, make_objective, make_step


class Net(nn.Module):
    """A hidden layer."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(6)(x)
        return nn.Dense(3)(jnp.tanh(x))


def test_it_is_the_mean_over_batches_of_squared_slopes():
    network = morph.linen_network(Net(), train_kwarg=None)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 5)).astype(np.float32)
    data = Batch(x, (np.arange(40) % 3).astype(np.int32))
    variables = network.init(jax.random.key(0), x[:1])
    graph = reg.trace_channels(network.predict, variables, x[:1])
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph), threshold=0.0)
    loop = Loop(step=make_step(), data=data, batch_size=8)
    state = TrainState.of(network, variables, optax.sgd(0.1))
    seen = loop.sample(3, 4)
    assert seen[1].shape == (4, 8)
    found = make_saliency(make_objective(), regularizer)(state, *seen, jax.random.key(1))

    def scaled(factors, rows):  # a factor on what produces the channel, in front of tanh
        first = variables["params"]["Dense_0"]
        h = jnp.tanh((x[rows] @ first["kernel"] + first["bias"][None]) * factors[None])
        last = variables["params"]["Dense_1"]
        return cross_entropy(h @ last["kernel"] + last["bias"][None], data.y[rows])

    slopes = [jax.grad(scaled)(jnp.ones(6), rows) for rows in np.asarray(seen[1])]
    np.testing.assert_allclose(found["Dense_0"], np.mean(np.square(slopes), 0), rtol=1e-4)
