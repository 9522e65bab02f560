"""Batches of Grain, read in parts."""

import itertools

import numpy as np
import pytest

from morph.errors import DataError
from morph.training import Batch, GrainBatches
from morph.training.data import Parted
from regularizers.errors import InputError, InputTypeError

grain = pytest.importorskip("grain")
EXAMPLES = [(np.full(2, i, np.float32), np.int32(i)) for i in range(29)]


def taken(stream, count=4):
    return list(itertools.islice(stream, count))


@pytest.fixture
def examples():
    return grain.MapDataset.source(EXAMPLES).seed(3).shuffle().repeat()


def test_parts_side_by_side_are_the_batches_whatever_their_number(examples):
    data = GrainBatches(examples, 12)
    assert isinstance(data, Parted)
    whole = taken(data.batches(0), 9)
    assert whole[0].x.shape == (12, 2)
    assert sorted(np.concatenate([b.y for b in whole])[:29]) == list(range(29))
    for parts in (2, 3):
        each = [taken(data.parts(5, part, parts)) for part in range(parts)]
        for batch, own in zip(whole[5:], zip(*each, strict=True), strict=True):
            np.testing.assert_array_equal(np.concatenate([one.x for one in own]), batch.x)
            np.testing.assert_array_equal(np.concatenate([one.y for one in own]), batch.y)


def test_what_grain_gives_can_be_made_a_batch(examples):
    data = GrainBatches(examples, 3, lambda pair: Batch({"ids": pair[0]}))
    (first,) = taken(data.batches(2), 1)
    assert first.x["ids"].shape == (3, 2)
    assert first.y is None


def test_what_ends_or_cannot_be_cut_is_refused(examples):
    with pytest.raises(DataError, match=r"must be a grain.MapDataset, found a list"):
        GrainBatches(EXAMPLES, 3)
    for wrong in (0, 2.5, None):
        with pytest.raises((InputError, InputTypeError), match="batch_size must be a whole number"):
            GrainBatches(examples, wrong)
    with pytest.raises(InputTypeError, match="batch must be a function"):
        GrainBatches(examples, 3, batch="rows")
    with pytest.raises(DataError, match=r"ends after 29 examples; add .repeat\(\)"):
        GrainBatches(grain.MapDataset.source(EXAMPLES), 3)
    with pytest.raises(DataError, match=r"12 cannot be read by 5 processes .* multiple of 5"):
        GrainBatches(examples, 12).parts(0, 0, 5)
