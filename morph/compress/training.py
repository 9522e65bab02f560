"""Training through compressed kernels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from morph.kernels.compressed import joined, partition, unpacked
from morph.kernels.tensorized import tensorized
from morph.network import NETWORK, VARIABLES, Network, Variables
from morph.training.augment import Augmentation
from morph.training.data import BATCH, Batch
from morph.training.evaluate import Evaluator
from morph.training.loop import Course, Loop
from morph.training.losses import Loss, cross_entropy
from morph.training.step import (
    TrainState,
    loops_well,
    make_step,
)
from regularizers.channels.trace import trace_channels
from regularizers.checks import FUNCTION, OPTIMIZER, checked, whole

FIXED = "compressed"  # the collection of masks and codes while a network trains
CHUNK = 50  # steps in one call


def evaluated(network: Network) -> Network:
    """The network on variables that may be compressed or factorized."""
    return Network(
        init=network.init,
        predict=tensorized(network.predict),
        forward=tensorized(network.forward),
    )


@checked(
    network=NETWORK,
    variables=VARIABLES,
    data=BATCH,
    optimizer=OPTIMIZER,
    steps=whole(least=1),
    batch_size=whole(least=1),
    seed=whole(least=0),
    loss=FUNCTION,
    augment=FUNCTION,
)
def train(
    network: Network,
    variables: Variables,
    data: Batch,
    optimizer: optax.GradientTransformation,
    *,
    steps: int,
    batch_size: int = 128,
    seed: int = 0,
    loss: Loss = cross_entropy,
    augment: Augmentation | None = None,
) -> tuple[Variables, optax.OptState]:
    """Trains what the values of compressed kernels train, and all other parameters.

    Args:
        network: a network; of variables without compressed kernels, too.
        variables: to start with; they stay as they are.
        data: the training set, whole.
        optimizer: of the floating-point arrays of `params`; codes and masks are None there.
        steps: how many.
        batch_size: examples per step; every epoch in another order.
        seed: of the order and of the network's randomness.
        loss: `(logits, y) -> scalar`.
        augment: `(key, x) -> x`.

    Returns:
        The trained variables, and the optimizer's state.

    Raises:
        TrainingDivergedError: if the loss is not a number.
    """
    network = evaluated(network)
    trained, fixed = partition(dict(variables)["params"])

    def whole(split: Variables) -> Variables:
        rest = {name: value for name, value in split.items() if name not in ("params", FIXED)}
        return {"params": joined(split["params"], split[FIXED]), **rest}

    own = Network(
        init=network.init,
        predict=lambda split, x: network.predict(whole(split), x),
        forward=lambda split, x, key: network.forward(whole(split), x, key),
    )
    start = {**variables, "params": trained, FIXED: fixed}
    state = TrainState.of(own, jax.tree.map(jnp.copy, start), optimizer)
    graph = trace_channels(network.predict, unpacked(variables), data.x[:1])
    loop = Loop(
        step=make_step(loss, augment=augment, looped=loops_well(graph)),
        data=data,
        batch_size=batch_size,
        every=CHUNK,
    )
    key = jax.random.key(seed)
    state = loop.last(state, Course(name="compress", steps=steps, key=key, shuffle=seed))
    return whole(state.variables), state.opt_state


@checked(network=NETWORK, variables=VARIABLES, data=BATCH)
def accuracy_of(network: Network, variables: Variables, data: Batch) -> float:
    """The share of examples that a network of such variables classifies right."""
    evaluator = Evaluator(data)
    predict = jax.jit(evaluated(network).predict)
    return evaluator.accuracy(evaluator.logits(predict, variables))
