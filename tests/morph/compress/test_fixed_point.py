"""Fixed point: rounding, the search for precisions, and networks that compute with integers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morph.compress.fixed_point import (
    FixedPoint,
    Precision,
    best_precision,
    rounded,
    rounding_errors,
    without_overflow,
)
from morph.kernels.compressed import partition


def test_the_search_finds_what_was_computed_elsewhere():
    i, j = np.arange(64)[:, None], np.arange(64)[None]
    w = np.sin(0.11 * i + 0.3) * np.cos(0.17 * j) + 0.2 * np.sin(0.013 * i * j)
    expected = {16: (14, 0.06338172), 8: (7, 14.94797499), 4: (3, 142.31184429)}
    worse = []
    for word, (length, error) in expected.items():
        found, l1 = best_precision(w, word)
        assert found == Precision(word_length=word, fractional_length=length)
        assert l1 == pytest.approx(error, abs=5e-9)
        (plain,) = rounding_errors(w, word, [without_overflow(w, word)])
        worse.append(plain / l1)
    assert 1.7 < max(worse) < 1.9  # than without overflow


@pytest.mark.parametrize("word", [2, 3, 8, 16])
def test_rounding_gives_the_nearest_number_that_there_is(word, rng):
    for length in (-3, 0, 5, word + 2):
        precision = Precision(word_length=word, fractional_length=length)
        grid = np.arange(-(1 << (word - 1)), 1 << (word - 1)) * precision.step
        x = (rng.normal(size=50) * grid[-1]).astype(np.float32)
        found = np.asarray(rounded(jnp.asarray(x), precision), np.float64)
        nearest = np.abs(grid[:, None] - x.astype(np.float64)).min(0)
        np.testing.assert_array_equal(np.abs(found - x.astype(np.float64)), nearest)
        assert set(found) <= set(grid)
    halves = Precision(word_length=4, fractional_length=0)
    ties = rounded(jnp.asarray([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]), halves)
    assert ties.tolist() == [-2, -2, 0, 0, 2, 2]


def test_gradients_pass_straight_and_stop_where_numbers_saturate():
    precision = Precision(word_length=3, fractional_length=1)  # -2, -1.5, ..., 1.5
    x = jnp.asarray([-3.0, -2.3, -2.2, 0.1, 1.7, 1.8, 9.0])
    slope = jax.grad(lambda x: (jnp.arange(1.0, 8.0) * rounded(x, precision)).sum())(x)
    assert slope.tolist() == [0, 0, 3, 4, 5, 0, 0]


@pytest.mark.parametrize("word", [5, 8, 12, 16])
def test_the_frozen_form_is_the_same_kernel_in_the_smallest_integers(word, rng):
    kernel = jnp.asarray(rng.normal(size=(3, 5)), jnp.float32)
    value = FixedPoint(kernel=kernel, precision=best_precision(kernel, word)[0])
    frozen = value.frozen()
    assert frozen.codes.dtype == (jnp.int8 if word <= 8 else jnp.int16)
    np.testing.assert_array_equal(frozen.dense(), value.dense())
    assert (value.shape, value.dtype) == (frozen.shape, frozen.dtype) == ((3, 5), jnp.float32)
    trained, fixed = partition({"a": value, "b": frozen})
    assert [leaf.dtype.kind for leaf in jax.tree.leaves((trained, fixed))] == ["f", "i"]


def test_zeros_and_constants_have_a_precision():
    assert best_precision(np.zeros((3, 4)), 8) == (Precision(word_length=8, fractional_length=7), 0)
    for number in (0.5, -1.0, 1e-36, -2e38, 100.0):
        found, error = best_precision(np.full(3, number), 8)
        assert error <= 3 * abs(number) / 100
        assert np.isfinite(rounded(jnp.full(2, number, jnp.float32), found)).all()


@pytest.mark.parametrize(
    ("x", "message"), [([1.0, np.nan], "kernel holds values that are NaN"), ([], "has no numbers")]
)
def test_there_is_nothing_to_choose_by(x, message):
    with pytest.raises(ValueError, match=message):
        best_precision(x, 8, what="kernel")


def test_outliers_saturate_as_the_criterion_says(rng):
    x = np.append(rng.normal(size=10_000), [40.0])
    lengths = {
        criterion: best_precision(x, 8, criterion=criterion)[0].fractional_length
        for criterion in ("l1", "l2", "range")
    }
    assert lengths == {"l1": 5, "l2": 2, "range": 1}
    for criterion, power in (("l1", 1), ("l2", 2)):
        errors = rounding_errors(x, 8, range(8), power=power)
        assert lengths[criterion] == int(errors.argmin())
    with pytest.raises(ValueError, match="one of l1, l2, range, found 'L3'"):
        best_precision(x, 8, criterion="L3")
