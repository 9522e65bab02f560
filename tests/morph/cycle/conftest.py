"""A tiny run, whose phases are called one by one."""

from functools import partial

import flax.linen as nn
import jax
import numpy as np
import pytest

from morph.budget.prices import Prices
from morph.budget.traces import Traces
from morph.cycle.asked import target_cost
from morph.cycle.config import CycleConfig
from morph.cycle.context import Context, key_of
from morph.cycle.listener import Silence
from morph.cycle.measure import Measure
from morph.cycle.recipe import Recipe
from morph.cycle.starts import fresh
from morph.cycle.store import Store
from morph.network import linen_network
from morph.training.data import Batch
from morph.training.evaluate import Evaluator
from morph.training.layout import Layout
from morph.training.loop import Loop
from morph.training.mesh import data_mesh

STEPS = {"seed_steps": 2, "shrink_steps": 2, "retrain_steps": 2, "batch_size": 4}


class Net(nn.Module):
    """One hidden layer of 6 channels."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6)(x))
        return nn.Dense(3)(x)


@pytest.fixture(scope="session")
def traces():
    network = linen_network(Net(), train_kwarg=None)
    return Traces.of_seed(network, key_of(0, 0), np.zeros((1, 5), np.float32))


@pytest.fixture(scope="session")
def variables(traces):
    """Of the seed network."""
    return fresh(traces.network, key_of(7, 0), traces.x)


@pytest.fixture
def run_of(traces, tmp_path):
    """Makes what holds for a run of some settings; nothing is trained yet."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 5)).astype(np.float32), (np.arange(12) % 3).astype(np.int32)
    data = Batch(x, y)

    def make(start=None, **settings):
        config = CycleConfig(**STEPS | settings)
        recipe = Recipe(config=config)
        prices = Prices(traces=traces, target=partial(target_cost, config))
        return Context(
            recipe=recipe,
            traces=traces,
            cost=target_cost(config, traces.graph),
            measure=Measure(
                prices=prices, evaluator=Evaluator(data, recipe.metrics, decide=recipe.decide)
            ),
            store=Store(workdir=tmp_path, prices=prices, facts={"cost": 0.0, "outcomes": []}),
            loop=Loop(step=recipe.step(traces), data=data, batch_size=4, every=1),
            layout=Layout(mesh=data_mesh()),
            listener=Silence(),
            start=start,
        )

    return make


@pytest.fixture
def stretch_of():
    """The first stretch of a kind."""
    return lambda run, kind: next(one for one in run.stretches if one.kind == kind)


@pytest.fixture
def same():
    """Compares two trees bit by bit."""
    return partial(jax.tree.map, np.testing.assert_array_equal)
