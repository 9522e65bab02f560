"""Data-aware low rank against brute force and against the answers of the plain SVD."""

import numpy as np
import pytest

from morph.kernels.decompose import factorize
from morph.tensorize.response import (
    Moments,
    free_responses,
    reduced_rank,
    reduced_rank_relu,
)


def _layer(samples=200, inputs=9, outputs=7, seed=0):
    """Inputs of uneven power with a mean, a kernel, and what it answers."""
    draw = np.random.default_rng(seed).standard_normal
    x = draw((samples, inputs)) @ np.diag(np.geomspace(3.0, 0.05, inputs)) @ draw((inputs, inputs))
    x = x + draw(inputs)
    kernel = draw((inputs, outputs))
    return x, kernel, x @ kernel + 0.3 * draw(outputs)


def _squares(x, y, factors):
    left, right, bias = factors
    return np.sum((y - x @ left @ right - bias) ** 2)


@pytest.mark.parametrize("bias", [False, True])
def test_errors_of_all_ranks_are_those_of_the_factors(bias):
    x, _, y = _layer()
    found = reduced_rank(Moments.of(x, y), bias=bias)
    for rank in range(1, 8):
        left, right, shift = found.factors(rank)
        assert left.shape == (9, rank)
        assert right.shape == (rank, 7)
        assert shift.any() == bias
        assert _squares(x, y, (left, right, shift)) == pytest.approx(
            found.errors[rank], abs=1e-10 * found.total
        )
        np.testing.assert_allclose(
            np.linalg.norm(left, axis=0), np.linalg.norm(right, axis=1), rtol=1e-9
        )
    assert found.errors[0] == pytest.approx(found.total)
    assert (np.diff(found.errors) <= 1e-9).all()
    assert found.least_rank(0.2) == np.argmax(np.sqrt(found.errors / found.total) <= 0.2)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_no_gradient_is_left(rank):
    """At the optimum no small change of the factors or the bias brings less."""
    x, _, y = _layer()
    y = y + np.random.default_rng(1).standard_normal(y.shape)  # asymmetric: no kernel answers so
    left, right, bias = reduced_rank(Moments.of(x, y), bias=True).factors(rank)
    rest = y - x @ left @ right - bias
    for gradient in (x.T @ rest @ right.T, left.T @ x.T @ rest, rest.sum(0)):
        np.testing.assert_allclose(gradient, 0.0, atol=1e-9 * np.abs(x.T @ y).max())
    best = _squares(x, y, (left, right, bias))
    for seed in range(5):  # nor is it a saddle: alternating least squares from elsewhere ends above
        other = np.random.default_rng(seed).standard_normal(right.shape)
        centered, aim = x - x.mean(0), y - y.mean(0)
        for _ in range(20):
            other_left = np.linalg.lstsq(centered, aim @ np.linalg.pinv(other), rcond=None)[0]
            other = np.linalg.lstsq(centered @ other_left, aim, rcond=None)[0]
        assert best <= np.sum((aim - centered @ other_left @ other) ** 2) + 1e-6


def test_it_answers_better_than_the_svd_of_the_kernel():
    x, kernel, _ = _layer()
    y = x @ kernel
    plain = np.asarray(factorize(kernel, "io", "svd", 3).value.dense())
    assert reduced_rank(Moments.of(x, y)).errors[3] < 0.5 * np.sum((y - x @ plain) ** 2)


def test_with_white_inputs_it_is_the_svd():
    x, kernel, _ = _layer()
    white = np.linalg.qr(x)[0]
    found = reduced_rank(Moments.of(white, white @ kernel))
    np.testing.assert_allclose(
        np.sqrt(found.errors), np.sqrt(np.r_[np.cumsum(_powers(kernel)[::-1])[::-1], 0]), atol=1e-6
    )


def _powers(kernel):
    return np.linalg.svd(kernel, compute_uv=False) ** 2


def test_moments_of_batches_add_up():
    x, kernel, y = _layer()
    whole = Moments.of(x, y)
    parts = Moments.of(x[:50], y[:50]) + Moments.of(x[50:], y[50:])
    for name in ("count", "input_sum", "target_sum", "inputs", "cross", "targets"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), atol=1e-9)
    answered = reduced_rank(Moments.of_inputs(whole, kernel))
    np.testing.assert_allclose(
        answered.errors, reduced_rank(Moments.of(x, x @ kernel)).errors, atol=1e-7
    )


def test_the_kernel_is_followed_where_there_are_no_samples():
    x, kernel, _ = _layer(samples=4)
    moments = Moments.of(x, x @ kernel)
    left, right, _ = reduced_rank(moments, kernel=kernel).factors(7)
    np.testing.assert_allclose(left @ right, kernel, atol=1e-6)
    left, right, _ = reduced_rank(moments).factors(7)
    np.testing.assert_allclose(x @ left @ right, x @ kernel, atol=1e-6)
    assert np.abs(left @ right - kernel).max() > 0.1


def test_dead_inputs_and_no_inputs_at_all():
    x, kernel, _ = _layer()
    x[:, 2] = 0.0
    left, right, _ = reduced_rank(Moments.of(x, x @ kernel)).factors(7)
    np.testing.assert_allclose((left @ right)[2], 0.0, atol=1e-9)
    nothing = reduced_rank(Moments.of(0 * x, 0 * x @ kernel), bias=True)
    assert nothing.total == 0.0
    assert all(np.isfinite(part).all() for part in nothing.factors(3))


@pytest.mark.parametrize("tie", [0.01, 0.3, 1.0])
def test_free_responses_are_the_best_on_a_grid(tie):
    grid = np.linspace(-6.0, 6.0, 4001)
    y, own = np.meshgrid(np.linspace(-3.0, 3.0, 13), np.linspace(-3.0, 3.0, 14))

    def loss(z):
        return (np.maximum(y, 0) - np.maximum(z, 0)) ** 2 + tie * (z - own) ** 2

    found = loss(free_responses(y, own, tie))
    best = np.min([loss(np.full_like(y, z)) for z in grid], axis=0)
    assert (found <= best + 1e-12).all()
    np.testing.assert_allclose(found, best, atol=1e-5)


def test_with_relu_it_answers_better_than_the_linear_reconstruction():
    x, kernel, y = _layer(samples=400, outputs=12)
    seen = x + 0.1 * np.random.default_rng(2).standard_normal(x.shape)  # of an approximated network
    found = reduced_rank_relu(seen, y, 3)
    left, right, bias = found.left, found.right, found.bias
    answers = np.maximum(seen @ left @ right + bias, 0.0)
    assert found.error == pytest.approx(np.sum((np.maximum(y, 0.0) - answers) ** 2), rel=1e-9)
    linear = reduced_rank(Moments.of(seen, y), bias=True).factors(3)
    there = np.maximum(seen @ linear[0] @ linear[1] + linear[2], 0.0)
    assert found.linear_error == pytest.approx(np.sum((np.maximum(y, 0.0) - there) ** 2), rel=1e-6)
    assert found.error < 0.95 * found.linear_error
    assert reduced_rank_relu(x, x @ kernel, 9, kernel=kernel).error < 1e-9


def test_of_few_samples_mixtures_of_responses_generalise():
    """Zhang et al.'s own form: the inputs are the original kernel's responses."""
    x, kernel, y = _layer(samples=2000, inputs=40, outputs=12, seed=3)
    few = slice(0, 45)
    mixed = reduced_rank_relu((x @ kernel)[few], y[few], 4)
    free = reduced_rank_relu(x[few], y[few], 4)

    def unseen(left, found):
        answers = np.maximum(x[45:] @ left @ found.right + found.bias, 0.0)
        return np.sum((np.maximum(y[45:], 0.0) - answers) ** 2)

    assert unseen(kernel @ mixed.left, mixed) < unseen(free.left, free)


def test_bad_input():
    x, kernel, y = _layer()
    with pytest.raises(ValueError, match=r"belong together, found \[200, 9\] and \[199, 7\]"):
        Moments.of(x, y[1:])
    with pytest.raises(ValueError, match="NaN or infinite"):
        Moments.of(x, np.where(y > 0, y, np.nan))
    with pytest.raises(ValueError, match="1 to 7, found 8"):
        reduced_rank(Moments.of(x, y)).factors(8)
    with pytest.raises(ValueError, match="1 to 7, found 0"):
        reduced_rank_relu(x, y, 0, kernel=kernel)
