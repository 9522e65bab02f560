"""Every example is counted once."""

import jax.numpy as jnp
import numpy as np
import pytest

from morph.training.data import (
    Batch,
)
from morph.training.evaluate import Evaluator


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
