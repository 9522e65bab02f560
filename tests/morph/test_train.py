"""Batches that any step can recompute, evaluation, and a loss that is not a number."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from morph.train import Batch, Evaluator, TrainingDivergedError, batches, check_finite


def take(stream, count):
    return [tuple(batch) for batch in itertools.islice(stream, count)]


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


def test_a_batch_larger_than_the_set_is_the_set():
    assert sorted(take(batches(3, 100, seed=0, start=7), 1)[0]) == [0, 1, 2]


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
