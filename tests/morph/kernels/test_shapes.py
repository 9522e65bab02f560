"""Factor shapes against all ways to write a width as a product."""

import itertools
import math

import pytest

from morph.kernels.shapes import balanced_factors, divisors, split_axes


@pytest.mark.parametrize("n", [1, 2, 17, 60, 64, 300, 784])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_no_other_factors_have_a_smaller_sum(n, count):
    found = balanced_factors(n, count)
    ways = [w for w in itertools.product(divisors(n), repeat=count) if math.prod(w) == n]
    assert math.prod(found) == n
    assert len(found) == count
    assert list(found) == sorted(found, reverse=True)
    assert sum(found) == min(map(sum, ways))


def test_divisors():
    assert divisors(36) == [d for d in range(1, 37) if 36 % d == 0]


def test_the_longest_axis_gets_the_next_factor():
    assert split_axes([12, 32], 3) == [(12,), (8, 4)]
    assert split_axes([12, 32], 5) == [(4, 3), (4, 4, 2)]
    assert split_axes([5], 1) == [(5,)]
