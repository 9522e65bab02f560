"""The ways to keep one kernel: ranks, what they cost, what they lose."""

import math

import numpy as np
import pytest

from morph.kernels.decompose import factorize
from morph.tensorize.options import interpolated, ladder, log_loss

M, N = 9, 6


@pytest.fixture
def kernel(rng):
    """Singular values fall by a third each."""
    left, right = (np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (M, N))
    return ((left[:, :N] * 3.0 ** -np.arange(N)) @ right).astype(np.float32)


def test_a_layer_loses_minus_the_logarithm_of_the_power_it_keeps():
    assert log_loss(0.0) == 0.0
    assert log_loss(0.6) == pytest.approx(-math.log(1 - 0.36))
    assert math.isfinite(log_loss(1.0))  # a layer that loses all


def test_errors_of_a_ladder_are_those_of_the_factorized_kernel(kernel):
    found = ladder(kernel, "io", "svd")
    assert [ranks["r"] for ranks, _ in found.rungs] == list(range(N, 0, -1))
    for ranks, error in found.rungs:
        assert error == pytest.approx(factorize(kernel, "io", "svd", ranks["r"]).error, abs=1e-5)
        assert found.parameters(ranks) == ranks["r"] * (M + N)


def test_of_a_stack_it_is_that_of_the_kernel_that_loses_most(kernel, rng):
    flat = rng.normal(size=(M, N)).astype(np.float32)  # singular values are about equal
    found = ladder(np.stack([kernel, flat]), "bio", "svd")
    assert found.rungs == ladder(flat, "io", "svd").rungs


def test_the_next_ranks_are_one_more_at_one_bond_and_at_all(rng):
    found = ladder(rng.normal(size=(3, 3, 8, 5)).astype(np.float32), "ssio", "tucker2")
    above = found.above({"r_in": 2, "r_out": 3})
    assert [tuple(ranks.values()) for ranks in above] == [(3, 3), (2, 4), (3, 4)]
    assert list(found.above({"r_in": 8, "r_out": 5})) == []  # as many as the axes can tell apart


def test_errors_that_were_measured_at_some_ranks_are_interpolated(kernel):
    known = ladder(kernel, "io", "svd")
    some = [({"r": N}, 0.0), ({"r": 2}, 0.4), ({"r": 1}, 0.8)]
    found = interpolated(known, some)
    assert found.error({"r": 2}) == pytest.approx(0.4)
    assert 0.0 < found.error({"r": 3}) < 0.4
