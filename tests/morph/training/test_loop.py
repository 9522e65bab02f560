"""The one loop: what goes on from a step is what went through, and runs side by side are alone."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import morph
from morph.errors import TrainingDivergedError
from morph.training import data
from morph.training.data import Batch
from morph.training.layout import Layout
from morph.training.loop import Course, Loop
from morph.training.mesh import data_mesh
from morph.training.step import TrainState, make_objective, make_step

RNG = np.random.default_rng(0)
DATA = Batch(RNG.normal(size=(30, 5)).astype(np.float32), RNG.integers(0, 3, 30).astype(np.int32))
NETWORK = morph.linen_network(nn.Dense(3), train_kwarg=None)
VARIABLES = jax.jit(NETWORK.init)(jax.random.key(0), DATA.x[:1])


def state(rate=0.1):
    return TrainState.of(NETWORK, jax.tree.map(jnp.array, VARIABLES), optax.sgd(rate))


@pytest.fixture(scope="module")
def loop():
    return Loop(step=make_step(), data=DATA, batch_size=7, every=5)


def course(**changes):
    return Course(
        **{"name": "here", "steps": 12, "key": jax.random.key(1), "shuffle": 3, **changes}
    )


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)


def test_it_stops_at_every_look_and_goes_on_from_any(loop):
    done = list(loop.run(state(), course()))
    assert [one.step for one in done] == [5, 10, 12]
    assert all(one.loss.shape == () and one.seen is None for one in done)
    half = loop.last(state(), course(steps=10))
    rest = list(loop.run(half, course(start=10)))
    assert [one.step for one in rest] == [12]
    assert rest[0].loss == done[-1].loss
    assert_same(rest[0].state, done[-1].state)


def test_a_set_that_is_too_large_for_the_devices_gives_the_same_batches(loop, monkeypatch):
    layout = Layout(mesh=data_mesh())
    kept = Loop(step=loop.step, data=DATA, batch_size=7, every=5, layout=layout)
    there, indices = kept.sample(2, 3, offset=5)
    losses = [one.loss for one in kept.run(state(), course(start=5))]
    monkeypatch.setattr(data, "RESIDENT", 500)
    assert data.is_large(DATA)
    assert not data.is_large(DATA.rows(slice(10)))
    streamed = Loop(step=loop.step, data=DATA, batch_size=7, every=5, layout=layout)
    whole, chunk = streamed.sample(2, 3, offset=5)
    assert whole is None
    jax.tree.map(np.testing.assert_array_equal, chunk, there.rows(np.asarray(indices)))
    assert [one.loss for one in streamed.run(state(), course(start=5))] == losses


def test_a_look_changes_the_state_and_is_told(loop):
    def look(state, step):
        return state.replace(params=jax.tree.map(jnp.zeros_like, state.params)), step * 2

    done = list(loop.run(state(), course(), look))
    assert [one.seen for one in done] == [10, 20, 24]
    assert not any(leaf.any() for leaf in jax.tree.leaves(done[-1].state.params))


def test_a_mesh_changes_nothing_on_one_device(loop):
    spread = Loop(step=loop.step, data=DATA, batch_size=7, every=5, layout=Layout(mesh=data_mesh()))
    assert_same(spread.last(state(), course()), loop.last(state(), course()))


def test_runs_side_by_side_are_what_each_is_alone(loop):
    step = jax.jit(jax.vmap(make_step(), in_axes=(0, None, 0, 0)))
    both = Loop(step=step, data=DATA, batch_size=7, every=5)
    tx = optax.sgd(0.1)
    start = TrainState.of(NETWORK, VARIABLES, tx)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf, leaf]), start)
    keys = jnp.stack([jax.random.key(1)] * 3)
    done = list(both.run(stacked, course(key=keys, shuffle=[3, 4, 3])))[-1]
    assert done.loss.shape == (3,)
    for i, seed in enumerate([3, 4, 3]):
        alone = loop.last(state(), course(shuffle=seed))
        one = jax.tree.map(lambda leaf, i=i: leaf[i], done.state.params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), one, alone.params)
    assert done.loss[0] == done.loss[2] != done.loss[1]


def test_a_loss_that_is_no_number_is_named_with_its_run():
    def broken(logits, batch):
        return logits.sum() * jnp.nan

    alone = Loop(step=make_step(make_objective(broken)), data=DATA, batch_size=7, every=5)
    with pytest.raises(TrainingDivergedError, match="nan at step 5 of phase 'here'"):
        alone.last(state(), course())
    step = jax.vmap(make_step(make_objective(broken)), in_axes=(0, None, 0, 0))
    both = Loop(step=step, data=DATA, batch_size=7, every=5)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), state())
    keys = jnp.stack([jax.random.key(1)] * 2)
    with pytest.raises(TrainingDivergedError, match="of phase 'here, run 1 of 2'"):
        both.last(stacked, course(key=keys, shuffle=[3, 4]))
