"""Which part of a range is worth its 8 bits."""

import numpy as np

from morph.export.clipping import before, narrowed, spread

RNG = np.random.default_rng(0)


def test_a_range_is_narrower_where_few_numbers_are_far_out():
    middle = RNG.normal(size=900_000)
    ranges = {"even": (-1.0, 3.0), "normal": (-20.0, 20.0), "not seen": (0.0, 1.0)}
    values = {"even": np.linspace(-1, 3, 999), "normal": np.append(middle, [-20, 20])}
    found = narrowed(ranges, [{"even": values["even"]}, {"normal": values["normal"]}])
    assert found["even"] == ranges["even"]
    assert found["not seen"] == ranges["not seen"]
    low, high = found["normal"]
    assert 4 < high < 12
    assert 4 < -low < 12


def test_some_examples_of_all():
    np.testing.assert_array_equal(spread(9, 3), [0, 4, 8])
    np.testing.assert_array_equal(spread(2, 32), [0, 1])


def test_what_a_product_follows():
    operations = [(False, ["a"], ["b"]), (True, ["b", "kernel"], ["c"]), (False, ["c"], ["d"])]
    assert before(iter(operations)) == {"a", "b", "kernel"}
