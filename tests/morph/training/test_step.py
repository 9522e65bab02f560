"""Compiled steps and what they may be asked for; data; evaluation; losses that are no numbers."""

import itertools
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import morph
from morph.cycle.config import CycleConfig
from morph.cycle.schedule import rate_of, stretches_of
from morph.errors import DataError, TrainingDivergedError
from morph.network import Network
from morph.training.augment import AUGMENTATIONS, augmented, mixup
from morph.training.checks import check_data, check_labels
from morph.training.data import (
    Batch,
    batches,
    chunk_ends,
    chunks,
    prefetched,
)
from morph.training.evaluate import Evaluator
from morph.training.losses import (
    LOSSES,
    METRICS,
    Teacher,
    cross_entropy,
    loss_named,
)
from morph.training.optimizers import OPTIMIZERS, make_optimizer, rate_schedule
from morph.training.step import TrainState, check_finite, make_step

KEY = jax.random.key(0)


def take(stream, count):
    return [tuple(batch) for batch in itertools.islice(stream, count)]


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
    return dense.init(KEY, data.x[:1])


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


# ---- Steps


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
def test_bfloat16_computes_in_it_and_keeps_float32(kind, networks, dense, variables, data):
    index = INDEX
    if kind == "nnx":
        built = networks("nnx")
        x = np.random.default_rng(0).normal(size=(40, 4, 4, 3)).astype(np.float32)
        variables, data = built.variables, Batch(x, data.y)

        def forward(variables, x, key):
            names = [name for name in variables if name != "params"]
            return built.fn(variables, x, train=True, mutable=names, rngs={"dropout": key})

        dense = Network(init=None, predict=built.fn, forward=forward)
    whole, losses = train(dense, variables, data, index)
    step = make_step(precision="bfloat16")
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


def test_a_teacher_of_full_weight_makes_labels_irrelevant(dense, variables, data):
    taught = dense.init(jax.random.key(7), data.x[:1])
    teacher = Teacher(predict=dense.predict, weight=1.0, temperature=2.0)
    step = make_step(teacher=teacher)
    runs = [
        train(dense, variables, Batch(data.x, labels), INDEX, step=step, teacher=taught)
        for labels in (data.y, np.zeros_like(data.y))
    ]
    assert_equal(runs[0], runs[1])
    untaught, _ = train(dense, variables, data, INDEX, step=step)
    with pytest.raises(AssertionError):
        assert_equal(untaught.params, runs[0][0].params)


def test_what_a_teacher_says_costs_nothing_once_it_is_learned(rng):
    logits = jnp.asarray(rng.normal(size=(4, 5)), jnp.float32)
    teacher = Teacher(predict=None, weight=0.5, temperature=3.0)
    assert teacher.loss(logits, logits + 2.0) == pytest.approx(0.0, abs=1e-6)
    p, q = (np.exp(z / 3.0) / np.exp(z / 3.0).sum(-1, keepdims=True) for z in (logits, -logits))
    assert teacher.loss(-logits, logits) == pytest.approx(
        9.0 * (p * np.log(p / q)).sum(-1).mean(), rel=1e-4
    )


def test_augmentation_and_mixup_are_compiled_and_depend_on_the_step(dense, variables, data):
    index = np.tile(INDEX[:1], (4, 1))  # the same batch every time
    seen = []

    def augment(key, x):
        jax.debug.callback(lambda bits: seen.append(tuple(bits.tolist())), jax.random.bits(key, 2))
        return x

    step = make_step(augment=augment, mixup_alpha=1.0)
    still = optax.set_to_zero()
    _, losses = train(dense, variables, data, index, step=step, tx=still)
    jax.effects_barrier()
    assert len(set(seen)) == 4
    assert len(set(losses.tolist())) == 4


# ---- Optimizers


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_follows_the_gradient_and_decays_kernels_only(name):
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    moved = {}
    for decay in (0.0, 0.5):
        tx = make_optimizer(name, 0.1, weight_decay=decay)
        gradient = jax.tree.map(lambda leaf: 0.1 * jnp.ones_like(leaf), params)
        updates, _ = tx.update(gradient, tx.init(params), params)
        moved[decay] = updates
        assert all(jnp.all(leaf < 0.0) for leaf in jax.tree.leaves(updates))
    np.testing.assert_array_equal(moved[0.0]["bias"], moved[0.5]["bias"])
    if name not in ("adam", "rmsprop", "lamb", "lars", "lion"):  # whose first step has one size
        assert jnp.all(moved[0.5]["kernel"] < moved[0.0]["kernel"])


def test_gradients_are_clipped_and_the_rate_warms_up():
    params = {"kernel": jnp.zeros((3, 4))}
    rate = rate_schedule(1.0, 10, warmup_steps=4)
    tx = make_optimizer("sgd", rate, weight_decay=0.0, clip_norm=0.5)
    state, sizes = tx.init(params), []
    for _ in range(6):
        updates, state = tx.update({"kernel": jnp.full((3, 4), 100.0)}, state, params)
        sizes.append(float(jnp.linalg.norm(updates["kernel"])))
    np.testing.assert_allclose(sizes[:5], 0.5 * np.asarray([0, 0.25, 0.5, 0.75, 1]), atol=1e-6)
    assert sizes[5] < sizes[4]


def test_a_schedule_of_the_run_goes_on_over_the_phases_that_share_weights():
    warm = CycleConfig(
        schedule="run",
        expand="warm",
        final="finetune",
        cycles=2,
        baseline=True,
        seed_steps=7,
        shrink_steps=5,
        retrain_steps=4,
    )

    def rates(config):
        phases = enumerate(stretches_of(config))
        return [[float(rate_of(config, i)(n)) for n in range(phase.steps)] for i, phase in phases]

    def one(peak, steps):
        return [float(rate_schedule(peak, steps)(n)) for n in range(steps)]

    uniform, *chain = rates(warm)
    assert uniform == one(warm.learning_rate, 4)
    assert list(itertools.chain(*chain)) == one(warm.learning_rate, 7 + 2 * (5 + 4))
    *_, shrink, retrain = rates(replace(warm, final="scratch"))
    assert retrain == one(warm.learning_rate, 4)
    assert shrink[-1] == one(warm.learning_rate, 7 + 5 + 4 + 5)[-1]
    assert rates(replace(warm, schedule="phase"))[2] == one(warm.shrink_learning_rate, 5)


# ---- Losses and metrics


def test_losses_and_metrics_are_what_numpy_says(rng):
    logits = rng.normal(size=(6, 7)).astype(np.float32)
    y = rng.integers(0, 7, 6)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    own = -log_p[np.arange(6), y].mean()
    assert cross_entropy(logits, y) == pytest.approx(own, rel=1e-5)
    smooth = 0.9 * own - 0.1 * log_p.mean()
    assert loss_named("cross_entropy", 0.1)(logits, y) == pytest.approx(smooth, rel=1e-5)
    rank = (logits > logits[np.arange(6), y][:, None]).sum(-1)
    assert METRICS["accuracy"](logits, y) == pytest.approx((rank == 0).mean())
    assert METRICS["top5_accuracy"](logits, y) == pytest.approx((rank < 5).mean())
    assert METRICS["log_likelihood"](logits, y) == pytest.approx(-own, rel=1e-5)
    values, wanted = logits[:, :1], rng.normal(size=6).astype(np.float32)
    error = values[:, 0] - wanted
    assert LOSSES["mean_squared_error"](values, wanted) == pytest.approx((error**2).mean())
    assert LOSSES["mean_absolute_error"](values, wanted) == pytest.approx(np.abs(error).mean())
    r2 = 1 - (error**2).mean() / wanted.var()
    assert METRICS["explained_variance"](values, wanted) == pytest.approx(r2, rel=1e-4)
    on = (wanted > 0).astype(np.float32)
    p = 1 / (1 + np.exp(-values[:, 0]))
    logistic = -(on * np.log(p) + (1 - on) * np.log(1 - p)).mean()
    assert LOSSES["sigmoid_cross_entropy"](values, on) == pytest.approx(logistic, rel=1e-5)


# ---- Augmentation


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(0).uniform(1.0, 2.0, (16, 8, 11, 3)), jnp.float32)


def test_flips_mirror_some_images_and_leave_the_others(images):
    out = AUGMENTATIONS["flip"](KEY, images)
    mirrored = [bool((a == b[:, ::-1]).all()) for a, b in zip(out, images, strict=True)]
    same = [bool((a == b).all()) for a, b in zip(out, images, strict=True)]
    assert [not m for m in mirrored] == same
    assert 0 < sum(same) < 16


def test_crops_are_windows_of_the_padded_image(images):
    out = np.asarray(AUGMENTATIONS["crop"](KEY, images))
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    found = set()
    for i, image in enumerate(out):
        places = [
            (r, c)
            for r in range(3)
            for c in range(3)
            if (image == padded[i, r : r + 8, c : c + 11]).all()
        ]
        assert len(places) == 1
        found.add(places[0])
    assert len(found) > 4


def test_cutout_clears_one_rectangle(images):
    out = np.asarray(AUGMENTATIONS["cutout"](KEY, images))
    for image, before in zip(out, np.asarray(images), strict=True):
        rows, columns = ((image == 0.0).all(2).any(axis) for axis in (1, 0))
        gone = np.outer(rows, columns)
        assert 3 <= rows.sum() <= 5
        assert 3 <= columns.sum() <= 5
        np.testing.assert_array_equal(image, np.where(gone[..., None], 0.0, before))


def test_augmentations_follow_one_another_with_keys_of_their_own(images):
    both = augmented(["flip", "crop"])(KEY, images)
    first = AUGMENTATIONS["flip"](jax.random.fold_in(KEY, 0), images)
    second = AUGMENTATIONS["crop"](jax.random.fold_in(KEY, 1), first)
    np.testing.assert_array_equal(both, second)


def test_mixup_blends_neighbours(images):
    x, y, share = mixup(KEY, images, jnp.arange(16), 0.5)
    np.testing.assert_array_equal(y, [15, *range(15)])
    np.testing.assert_allclose(x[1], share * images[1] + (1 - share) * images[0], rtol=1e-6)
    assert 0.0 <= share <= 1.0


# ---- Data


def test_an_epoch_is_a_permutation_less_its_incomplete_batch():
    first = np.concatenate(take(batches(23, 5, seed=3, start=0), 4))
    assert len(set(first)) == 20
    assert set(first) <= set(range(23))


def test_batches_resume_anywhere_and_differ_by_epoch_and_seed():
    all_of_them = take(batches(23, 5, seed=3, start=0), 12)
    for start in (1, 4, 9):
        assert take(batches(23, 5, seed=3, start=start), 12 - start) == all_of_them[start:]
    assert all_of_them[:4] != all_of_them[4:8]
    assert take(batches(23, 5, seed=4, start=0), 4) != all_of_them[:4]


def test_a_batch_larger_than_the_set_is_refused():
    with pytest.raises(DataError, match="batch_size is 100, but there are only 3"):
        next(batches(3, 100, seed=0, start=7))


class Counting:
    """A pipeline whose batches say their number; it may end, or change its shape."""

    def __init__(self, length=10**9, odd=-1):
        self.length, self.odd = length, odd

    def batches(self, start):
        for i in range(start, self.length):
            yield Batch(np.full((2 if i == self.odd else 4, 3), i), np.zeros(4, int))


def test_a_pipeline_goes_on_where_the_run_is():
    found = list(chunks(Counting(), 0, [15, 17], start=10, seed=0, offset=100))
    assert [chunk.x.shape for chunk in found] == [(5, 4, 3), (2, 4, 3)]
    assert [int(x) for chunk in found for x in chunk.x[:, 0, 0]] == list(range(110, 117))


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        (Counting(length=8), "ended after 8 batches; training needs at least 10"),
        (Counting(odd=7), "must have one shape"),
    ],
)
def test_a_pipeline_that_ends_or_changes_shape_is_told(pipeline, message):
    with pytest.raises(DataError, match=message):
        list(chunks(pipeline, 0, [5, 10], start=0, seed=0))


def test_a_grain_loader_is_a_pipeline(data):
    grain = pytest.importorskip("grain")

    class Loader:
        def batches(self, start):
            source = grain.MapDataset.source(list(zip(*data, strict=True))).seed(3).shuffle()
            stream = source.repeat().batch(8)
            for i in itertools.count(start):
                yield Batch(*stream[i])

    whole = next(chunks(Loader(), 0, [6], start=0, seed=0))
    late = next(chunks(Loader(), 0, [6], start=4, seed=0))
    assert whole.x.shape == (6, 8, 5)
    np.testing.assert_array_equal(whole.x[4:], late.x)
    assert whole.y.dtype == data.y.dtype


def test_prefetching_hands_errors_on_and_stops_when_it_is_left():
    made = []

    def items():
        for i in itertools.count():
            made.append(i)
            if i == 50:
                raise OSError("the disk is gone")
            yield i

    stream = prefetched(items(), ahead=2)
    assert list(itertools.islice(stream, 3)) == [0, 1, 2]
    stream.close()
    assert len(made) <= 7
    with pytest.raises(OSError, match="the disk is gone"):
        list(prefetched(items(), ahead=2))


X, Y = np.ones((4, 3), np.float32), np.zeros(4, int)
NAN = np.where(np.arange(4)[:, None] == 2, np.nan, X)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (Batch(X[:0], Y[:0]), Batch(X, Y), r"training set is empty.*\(0, 3\)"),
        (Batch(X, Y), Batch(X[:0], Y[:0]), "test set is empty"),
        (Batch(X, Y[:3]), Batch(X, Y), r"training set has 4 inputs, but labels of shape \(3,\)"),
        (Batch(X, Y), Batch(X[:, :2], Y), r"training set have shape \(3,\), of the test set \(2,"),
        (Batch(NAN, Y), Batch(X, Y), "inputs of the training set are not finite in 1 of 4.* 2;"),
        (Batch(X, Y), Batch(X, np.inf + Y), "labels of the test set are not finite"),
        (Counting(length=0), Batch(X, Y), "pipeline gives no batches"),
    ],
)
def test_data_that_nothing_can_be_learned_from_is_refused(train, test, message):
    with pytest.raises(DataError, match=message):
        check_data(train, test)


@pytest.mark.parametrize(
    ("y", "classes", "message"),
    [
        (np.asarray([0, 3]), True, "go from 0 to 3, but the network tells 3 classes apart"),
        (np.asarray([-1, 2]), True, "go from -1 to 2"),
        (np.asarray([0.5, 1.0]), True, "are float64 of shape"),
        (np.asarray([[0], [1]]), True, r"of shape \(1,\) for an example"),
        (np.asarray([0.5, 1.0]), False, r"have shape \(\) for an example, the network gives \(3,"),
    ],
)
def test_labels_that_do_not_fit_the_network_are_refused(y, classes, message):
    with pytest.raises(DataError, match=message):
        check_labels("training", y, (3,), classes=classes)


# ---- Evaluation


def test_evaluator_pads_its_last_batch_and_counts_every_example_once():
    x = jnp.arange(7.0)[:, None]
    y = jnp.asarray([0, 1, 0, 1, 1, 1, 1])
    evaluator = Evaluator(Batch(x, y), batch_size=3)
    sizes = []

    def predict(variables, x):
        sizes.append(len(x))
        return jnp.concatenate([jnp.full_like(x, variables), x], axis=1)

    logits = evaluator.logits(predict, 3.5)
    assert sizes == [3, 3, 3]
    np.testing.assert_array_equal(logits[:, 1], np.arange(7.0))
    assert evaluator.accuracy(logits) == pytest.approx(5 / 7)


def test_a_loss_that_is_not_finite_says_where_and_what_to_try():
    check_finite(1.0, step=3, phase="shrink")
    with pytest.raises(TrainingDivergedError, match=r"nan at step 40 of phase 'shrink'.*learning"):
        check_finite(float("nan"), step=40, phase="shrink")
    with pytest.raises(TrainingDivergedError, match="inf"):
        check_finite(float("inf"), step=1, phase="seed")
