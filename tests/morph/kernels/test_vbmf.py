"""EVBMF against values computed elsewhere, and what its model promises."""

import numpy as np
import pytest

from morph.kernels.vbmf import evbmf, evbmf_rank, least_tau


def _waves() -> np.ndarray:
    i, j = np.arange(1, 13)[:, None], np.arange(1, 31)[None]
    strong = 3 * np.sin(0.3 * i) * np.cos(0.2 * j) + np.cos(0.7 * i) * np.sin(0.45 * j)
    return strong + 0.1 * np.sin(1.7 * i * j + 0.3 * j)


def _noisy(rows: int, columns: int, rank: int, noise: float, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed).standard_normal
    low = draw((rows, rank)) @ draw((rank, columns)) / np.sqrt(rank)
    return low + noise * draw((rows, columns))


def _of(matrix: np.ndarray):
    return evbmf(np.linalg.svd(matrix, compute_uv=False), *matrix.shape)


@pytest.mark.parametrize(
    ("ratio", "tau"),
    [(1.0, 2.51286242), (0.5, 1.78264010), (0.25, 1.27260756), (0.1, 0.82221096)],
)
def test_the_threshold_is_the_exact_root(ratio, tau):
    assert least_tau(ratio) == pytest.approx(tau, abs=5e-9)


@pytest.mark.parametrize("transposed", [False, True])
def test_two_waves(transposed):
    found = _of(_waves().T if transposed else _waves())
    assert found.rank == 2
    np.testing.assert_allclose(found.values, [26.3376, 8.7634], atol=5e-5)


@pytest.mark.parametrize("scale", [1e-30, 7.0, 1e30])
def test_it_scales_with_the_matrix(scale):
    plain, scaled = _of(_waves()), _of(scale * _waves())
    assert scaled.rank == plain.rank
    np.testing.assert_allclose(scaled.values, scale * plain.values, rtol=1e-6)
    assert scaled.noise_variance == pytest.approx(scale**2 * plain.noise_variance, rel=1e-5)
    assert scaled.threshold == pytest.approx(scale * plain.threshold, rel=1e-5)


@pytest.mark.parametrize(
    ("rows", "columns", "rank", "noise", "seed"), [(64, 576, 10, 0.05, 1), (50, 50, 5, 0.2, 2)]
)
def test_rank_and_noise_of_random_matrices(rows, columns, rank, noise, seed):
    found = _of(_noisy(rows, columns, rank, noise, seed))
    assert found.rank == rank
    assert found.noise_variance == pytest.approx(noise**2, rel=0.02)


@pytest.mark.parametrize("shape", [(30, 40), (100, 100), (1, 9), (9, 1), (1, 1), (3, 0)])
def test_nothing_stands_out_of_noise_or_zeros(shape):
    for matrix in (np.random.default_rng(0).standard_normal(shape), np.zeros(shape)):
        found = _of(matrix)
        assert found.rank == len(found.values) == 0
        assert np.isfinite(found.noise_variance)


def test_without_noise_the_rank_is_the_matrix_own():
    assert evbmf_rank(_noisy(40, 70, 7, 0.0, 3)) == 7
    assert evbmf_rank(_noisy(40, 70, 7, 0.0, 3).astype(np.float32)) == 7


def test_all_singular_values_are_needed():
    with pytest.raises(ValueError, match="has 5 singular values, found 2"):
        evbmf([2.0, 1.0], 5, 8)
