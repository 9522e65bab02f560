"""Data and settings that do not fit each other are refused at the entrance."""

import flax.linen as nn
import numpy as np
import pytest

from morph.cycle.config import CycleConfig
from morph.cycle.recipe import Recipe
from morph.errors import DataError
from morph.network import linen_network
from morph.training.data import Batch


class Net(nn.Module):
    """One layer."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 310).astype(np.int32)
    x = rng.normal(size=(310, 5, 5, 1)).astype(np.float32)
    x[np.arange(310), y, y, 0] += 3.0
    return Batch(x[:200], y[:200]), Batch(x[200:], y[200:])


def check(train, test, **settings):
    network = linen_network(Net(), train_kwarg=None)
    Recipe(config=CycleConfig(batch_size=32, **settings)).check(network, train, test)


def test_data_is_checked_at_the_entrance(data):
    train, test = data
    check(train, test)
    cases = {
        "go from 1 to 3, but the network has 3 classes": Batch(
            train.x, np.where(train.y, train.y, 3)
        ),
        "training set is empty": Batch(train.x[:0], train.y[:0]),
        "are not finite": Batch(np.where(train.x > 3, np.nan, train.x), train.y),
        "of the test set": Batch(train.x[:, :4], train.y),
        "batch_size is 32, but there are only 20": Batch(train.x[:20], train.y[:20]),
    }
    for message, wrong in cases.items():
        with pytest.raises(DataError, match=message):
            check(wrong, test)
    flat = [Batch(part.x.reshape(len(part.x), -1), part.y) for part in data]
    with pytest.raises(DataError, match="augment is 'flip', which needs images"):
        check(*flat, augment="flip")
