"""The one cut: by the saliency of now, and with the blocks that the loss does not mind."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import morph
import regularizers as reg
from morph.architecture.architecture import Architecture
from morph.budget.traces import Traces
from morph.cycle.config import CycleConfig
from morph.cycle.cut import BATCHES, Cut, Measuring
from morph.cycle.shrinking import regularizer_of_rest
from morph.training.data import Batch
from morph.training.loop import Loop
from morph.training.step import TrainState, make_objective, make_step


class Net(nn.Module):
    """Two blocks beside a stream."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(8)(x))
        for _ in range(2):
            y = nn.Dense(6)(x)
            x = x + nn.Dense(8)(nn.relu(y))
        return nn.Dense(3)(x)


@pytest.fixture(scope="module")
def made():
    network = morph.linen_network(Net(), train_kwarg=None)
    rng = np.random.default_rng(0)
    y = (np.arange(64) % 3).astype(np.int32)
    x = rng.normal(size=(64, 4)).astype(np.float32)
    x[np.arange(64), y] += 3.0
    traces = Traces.of_seed(network, jax.random.key(0), jnp.asarray(x[:1]))
    regularizer = reg.NetworkRegularizer(
        traces.graph, reg.flops(traces.graph), threshold=0.0, blocks=True
    )
    budget = morph.Budget(regularizer, 0.6, steps=20, settle=0.5)
    loop = Loop(step=make_step(), data=Batch(x, y), batch_size=16)
    cut = Cut(
        budget=budget,
        measuring=Measuring(objective=make_objective(), regularizer=regularizer, loop=loop),
        rest=regularizer_of_rest(
            CycleConfig(penalty="group_lasso"), traces, Architecture.of_seed(traces.graph)
        ),
        key=jax.random.key(1),
    )
    variables = network.init(jax.random.key(0), x[:1])
    # The second block is noise, which the loss minds; the first gives nearly nothing.
    params = dict(variables["params"])
    params["Dense_4"] = jax.tree.map(lambda leaf: 3.0 * leaf, params["Dense_4"])
    params["Dense_2"] = jax.tree.map(lambda leaf: 1e-3 * leaf, params["Dense_2"])
    tx = budget.optimizer(optax.sgd(0.1))
    return cut, TrainState.of(network, {"params": params}, tx)


def test_nothing_happens_before_the_cut_nor_after_it(made):
    cut, state = made
    assert cut(state, 9) is state
    held = jax.tree.map(jnp.ones_like, state.opt_state.held)
    after = state.replace(opt_state=state.opt_state._replace(held=held))
    assert cut(after, 12) is after


def test_it_measures_saliency_and_silences_blocks_that_pay(made):
    cut, state = made
    seen = cut(state, 10)
    assert all(float(s.max()) > 0.0 for s in seen.opt_state.saliency.values())
    silent = cut.budget.regularizer.silent_blocks(seen.params)
    assert "Dense_2" in silent
    sample = cut.measuring.loop.sample(0, BATCHES)
    kept = cut._cut_loss(state, jax.device_get(seen.opt_state.saliency), [], sample)
    assert cut._cut_loss(state, jax.device_get(seen.opt_state.saliency), [*silent], sample) < kept
