"""Batches: permutations that resume anywhere, pipelines, prefetching."""

import itertools

import numpy as np
import pytest

from morph.errors import DataError
from morph.training.data import (
    Batch,
    Share,
    batches,
    chunks,
    prefetched,
)


def take(stream, count):
    return [tuple(batch) for batch in itertools.islice(stream, count)]


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 40).astype(np.int32)
    return Batch(rng.normal(size=(40, 5)).astype(np.float32) + y[:, None], y)


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
        (Counting(odd=7), "must have one structure and one shape"),
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


def test_a_share_of_an_evaluation_set_reads_no_other_batches_where_these_have_numbers():
    def stream():
        yield from "abcde"

    class Stream:
        def __iter__(self):
            return stream()

    assert list(Share(Stream(), 1, 2)) == ["b", "d"]
    assert list(Share("abcde", 0, 2)) == ["a", "c", "e"]
    assert list(Share("abcde", 5, 6)) == []
