"""Training through compressed kernels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from morph.kernels.compressed import joined, partition, unpacked
from morph.kernels.tensorized import tensorized
from morph.network import NETWORK, VARIABLES, Network, Variables
from morph.training.data import BATCH, DATA, Batch, Pipeline, first_of
from morph.training.evaluate import Evaluator
from morph.training.loop import Course, Loop
from morph.training.metrics import METRICS
from morph.training.step import (
    TrainState,
    loops_well,
    make_objective,
    make_step,
)
from morph.training.task import CROSS_ENTROPY, TASK, Task
from regularizers.channels.trace import trace_channels
from regularizers.checks import OPTIMIZER, checked, whole

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
    data=DATA,
    optimizer=OPTIMIZER,
    steps=whole(least=1),
    batch_size=whole(least=1),
    seed=whole(least=0),
    task=TASK,
)
def train(
    network: Network,
    variables: Variables,
    data: Batch | Pipeline,
    optimizer: optax.GradientTransformation,
    *,
    steps: int,
    batch_size: int = 128,
    seed: int = 0,
    task: Task | None = None,
) -> tuple[Variables, optax.OptState]:
    """Trains what the values of compressed kernels train, and all other parameters.

    Args:
        network: a network; of variables without compressed kernels, too.
        variables: to start with; they stay as they are.
        data: the training set, whole, or a pipeline of batches.
        optimizer: of the floating-point arrays of `params`; codes and masks are None there.
        steps: how many.
        batch_size: examples per step; every epoch in another order.
        seed: of the order and of the network's randomness.
        task: what is minimised (cross-entropy if it names no loss), and changes to batches.

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
    task = task or Task()
    x = first_of(data, "training pipeline").rows(slice(0, 1)).x
    graph = trace_channels(network.predict, unpacked(variables), x)
    loop = Loop(
        step=make_step(
            make_objective(task.loss or CROSS_ENTROPY, augment=task.augment),
            looped=loops_well(graph),
        ),
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
    evaluator = Evaluator(data, {"accuracy": METRICS["accuracy"]})
    return evaluator.measure(jax.jit(evaluated(network).predict), variables)["accuracy"]
