"""What a task is made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morph.training.augment import flip
from morph.training.data import Batch
from morph.training.task import CROSS_ENTROPY, classes_of, inputs_augmented, total


def test_a_loss_of_labels_is_one_of_a_batch_and_terms_add_up():
    logits, batch = jnp.asarray([[0.0, 0.0], [0.0, 0.0]]), Batch(None, np.asarray([0, 1]))
    assert CROSS_ENTROPY(logits, batch) == pytest.approx(np.log(2.0))
    assert total({"one": 1.5, "other": 2.0}) == 3.5
    assert total(1.5) == 1.5
    assert classes_of(jnp.asarray([[0.0, 2.0, 1.0]])).tolist() == [1]


def test_augmented_inputs_leave_labels_alone():
    x, y = jnp.arange(12.0).reshape(2, 2, 3, 1), jnp.arange(2)
    batch = inputs_augmented(flip)(jax.random.key(3), Batch(x, y))
    assert batch.y is y
    assert batch.x.shape == x.shape
