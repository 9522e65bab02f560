"""Data that nothing can be learned from are refused."""

import jax
import numpy as np
import pytest

from morph.errors import DataError
from morph.training.checks import check_data, check_labels
from morph.training.data import (
    Batch,
)

KEY = jax.random.key(0)


class Empty:
    """A pipeline without batches."""

    def batches(self, start):
        return iter(())


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
        (Empty(), Batch(X, Y), "training pipeline gives no batches"),
    ],
)
def test_data_that_nothing_can_be_learned_from_is_refused(train, test, message):
    with pytest.raises(DataError, match=message):
        check_data(train, test)


@pytest.mark.parametrize(
    ("y", "classes", "message"),
    [
        (np.asarray([0, 3]), True, "go from 0 to 3, but the network has 3 classes"),
        (np.asarray([-1, 2]), True, "go from -1 to 2"),
        (np.asarray([0.5, 1.0]), True, "are float64 of shape"),
        (np.asarray([[0], [1]]), True, r"of shape \(1,\) for an example"),
        (np.asarray([0.5, 1.0]), False, r"have shape \(\) for an example, the network gives \(3,"),
    ],
)
def test_labels_that_do_not_fit_the_network_are_refused(y, classes, message):
    with pytest.raises(DataError, match=message):
        check_labels("training", y, (3,), classes=classes)
