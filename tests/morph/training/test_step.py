"""Compiled steps and what they may be asked for; data; evaluation; losses that are no numbers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import morph
from morph.errors import TrainingDivergedError
from morph.network import Network
from morph.training.data import (
    Batch,
    chunk_ends,
)
from morph.training.losses import Teacher, cross_entropy, soft_labels
from morph.training.optimizers import make_optimizer, rate_schedule
from morph.training.step import TrainState, check_finite, make_objective, make_step

KEY = jax.random.key(0)


class Net(nn.Module):
    """Dense, batch norm, dropout."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(7)(x.reshape(len(x), -1))
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        return nn.Dense(3)(nn.Dropout(0.2, deterministic=not train)(x))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 40).astype(np.int32)
    return Batch(rng.normal(size=(40, 5)).astype(np.float32) + y[:, None], y)


@pytest.fixture(scope="module")
def dense():
    return morph.linen_network(Net())


@pytest.fixture(scope="module")
def variables(dense, data):
    return jax.jit(dense.init)(KEY, data.x[:1])


def train(dense, variables, data, chunk, *, step=None, tx=None, **state):
    """The state and the losses after a chunk; the variables stay whole."""
    step = step or make_step()
    copied, state = jax.tree.map(jnp.array, (variables, state))
    state = TrainState.of(
        dense, copied, tx or make_optimizer("momentum", rate_schedule(0.1, 10)), **state
    )
    resident = None if isinstance(chunk, Batch) else Batch(*map(jnp.asarray, data))
    return step(state, resident, chunk, KEY)


INDEX = np.arange(40).reshape(4, 10)


@pytest.fixture(scope="module")
def plain(dense, variables, data):
    return train(dense, variables, data, INDEX)


def assert_equal(one, other, tolerance=1e-6):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance)


@pytest.mark.promotes
def test_steps_are_the_same_looped_or_one_by_one_resident_or_streamed(
    dense, variables, data, plain
):
    state, losses = plain
    assert losses.shape == (4,)
    assert state.step == 4
    streamed = Batch(data.x[INDEX], data.y[INDEX])
    for chunk, looped in ((INDEX, False), (streamed, True)):
        again, found = train(dense, variables, data, chunk, step=make_step(looped=looped))
        np.testing.assert_allclose(found, losses, rtol=1e-5)
        assert_equal(again.variables, state.variables, 1e-5)


def test_chunks_end_where_a_resumed_run_ends_them():
    ends = chunk_ends(0, 23, 5)
    assert ends == [5, 10, 15, 20, 23]
    for i, start in enumerate(ends[:-1]):
        assert chunk_ends(start, 23, 5) == ends[i + 1 :]
    assert chunk_ends(23, 23, 5) == []


@pytest.mark.parametrize("kind", ["linen", "nnx"])
@pytest.mark.promotes
def test_bfloat16_computes_in_it_and_keeps_float32(kind, networks, dense, variables, data):
    index = INDEX
    if kind == "nnx":
        built = networks("nnx")
        x = np.random.default_rng(0).normal(size=(40, 4, 4, 3)).astype(np.float32)
        variables, data = built.variables, Batch(x, data.y)

        def forward(variables, x, key):
            names = [name for name in variables if name != "params"]
            return built.fn(variables, x, train=True, mutable=names, rngs={"dropout": key})

        dense = Network(init=built.fn, predict=built.fn, forward=forward)
    whole, losses = train(dense, variables, data, index)
    step = make_step(make_objective(precision="bfloat16"))
    state, rough = train(dense, variables, data, index, step=step)
    assert [a.dtype for a in jax.tree.leaves(state)] == [a.dtype for a in jax.tree.leaves(whole)]
    np.testing.assert_allclose(rough, losses, rtol=0.1)
    assert not np.array_equal(rough, losses)
    resident = Batch(*map(jnp.asarray, data))
    text = str(jax.make_jaxpr(step)(whole, resident, index, KEY))
    assert "bf16" in text.split("dot_general")[0]  # the operands of the first product


def test_the_average_is_the_textbook_one_and_as_sparse(dense, variables, data):
    def dead(params):
        return {**params, "Dense_0": jax.tree.map(jnp.zeros_like, params["Dense_0"])}

    freeze = optax.multi_transform(
        {"train": optax.sgd(0.1), "keep": optax.set_to_zero()},
        lambda params: {name: "keep" if name == "Dense_0" else "train" for name in params},
    )
    expected = {**variables, "params": dead(variables["params"])}
    step = make_step(ema_decay=0.3)
    state = TrainState.of(dense, jax.tree.map(jnp.array, variables), freeze, averages=True)
    state = state.replace(params=dead(state.params))
    for i in range(4):
        state, _ = step(state, Batch(*map(jnp.asarray, data)), INDEX[i : i + 1], KEY)
        decay = min(0.3, (i + 1) / (i + 10))
        expected = jax.tree.map(
            lambda old, new, d=decay: d * old + (1 - d) * new, expected, state.variables
        )
    assert_equal(state.learned, expected)
    assert not jnp.any(state.learned["params"]["Dense_0"]["kernel"])
    assert state.replace(ema={}).learned["params"] is state.params


@pytest.mark.promotes
def test_a_teacher_of_full_weight_makes_labels_irrelevant(dense, variables, data):
    taught = jax.jit(dense.init)(jax.random.key(7), data.x[:1])
    teacher = Teacher(predict=dense.predict, weight=1.0, loss=soft_labels)
    step = make_step(make_objective(teacher=teacher))
    runs = [
        train(dense, variables, Batch(data.x, labels), INDEX, step=step, teacher=taught)
        for labels in (data.y, np.zeros_like(data.y))
    ]
    assert_equal(runs[0], runs[1])
    untaught, _ = train(dense, variables, data, INDEX, step=step)
    with pytest.raises(AssertionError):
        assert_equal(untaught.params, runs[0][0].params)


@pytest.mark.promotes
def test_terms_of_a_loss_add_up_and_a_teacher_adds_its_own(dense, variables, data, plain):
    def halves(outputs, batch):
        half = 0.5 * cross_entropy(outputs, batch.y)
        return {"one": half, "other": half}

    teacher = Teacher(predict=dense.predict, weight=0.25, loss=soft_labels)
    taught = dense.init(jax.random.key(7), data.x[:1])
    step = make_step(make_objective(halves, teacher=teacher), looped=False)
    _, terms = train(dense, variables, data, INDEX, step=step, teacher=taught)
    assert set(terms) == {"one", "other", "distill"}
    assert terms["one"].shape == terms["distill"].shape == (4,)
    assert terms["one"][0] == terms["other"][0]
    assert float(terms["one"][0]) == pytest.approx(0.375 * float(plain[1][0]), rel=1e-5)
    assert terms["distill"][0] > 0.0


def test_augmentation_and_mixup_are_compiled_and_depend_on_the_step(dense, variables, data):
    index = np.tile(INDEX[:1], (4, 1))  # the same batch every time
    seen = []

    def augment(key, batch):
        jax.debug.callback(lambda bits: seen.append(tuple(bits.tolist())), jax.random.bits(key, 2))
        return batch

    step = make_step(make_objective(augment=augment, mixup_alpha=1.0))
    still = optax.set_to_zero()
    _, losses = train(dense, variables, data, index, step=step, tx=still)
    jax.effects_barrier()
    assert len(set(seen)) == 4
    assert len(set(losses.tolist())) == 4


def test_a_loss_that_is_not_finite_says_where_and_what_to_try():
    check_finite(1.0, step=3, phase="shrink")
    with pytest.raises(TrainingDivergedError, match=r"nan at step 40 of phase 'shrink'.*learning"):
        check_finite(float("nan"), step=40, phase="shrink")
    with pytest.raises(TrainingDivergedError, match="inf"):
        check_finite(float("inf"), step=1, phase="seed")
