"""Losses, against NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from morph.training.losses import (
    LOSSES,
    cosine_distance,
    cross_entropy,
    loss_named,
    masked_cross_entropy,
    responses,
    soft_labels,
)


def test_what_a_teacher_says_costs_nothing_once_it_is_learned(rng):
    logits = jnp.asarray(rng.normal(size=(4, 5)), jnp.float32)
    assert soft_labels(logits, logits + 2.0, 3.0) == pytest.approx(0.0, abs=1e-6)
    p, q = (np.exp(z / 3.0) / np.exp(z / 3.0).sum(-1, keepdims=True) for z in (logits, -logits))
    assert soft_labels(-logits, logits, 3.0) == pytest.approx(
        9.0 * (p * np.log(p / q)).sum(-1).mean(), rel=1e-4
    )
    taught = {"hidden": [logits, 2.0 * logits], "step": jnp.arange(3)}
    nothing = {"hidden": [logits, jnp.zeros_like(logits)], "step": jnp.zeros(3, int)}
    assert responses(nothing, taught) == pytest.approx(0.5)  # relative to each response's size
    assert cosine_distance(logits, 3.0 * logits) == pytest.approx(0.0, abs=1e-6)
    assert cosine_distance(logits, -logits) == pytest.approx(2.0, abs=1e-6)


def test_losses_are_what_numpy_says(rng):
    logits = rng.normal(size=(6, 7)).astype(np.float32)
    y = rng.integers(0, 7, 6)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    own = -log_p[np.arange(6), y].mean()
    assert cross_entropy(logits, y) == pytest.approx(own, rel=1e-5)
    smooth = 0.9 * own - 0.1 * log_p.mean()
    assert loss_named("cross_entropy", 0.1)(logits, y) == pytest.approx(smooth, rel=1e-5)
    masked = np.where(np.arange(6) < 2, y, -1)
    of_two = -log_p[np.arange(2), y[:2]].mean()
    assert masked_cross_entropy(logits, masked) == pytest.approx(of_two, rel=1e-5)
    assert masked_cross_entropy(logits, np.full(6, -1)) == 0.0
    values, wanted = logits[:, :1], rng.normal(size=6).astype(np.float32)
    error = values[:, 0] - wanted
    assert LOSSES["mean_squared_error"](values, wanted) == pytest.approx((error**2).mean())
    assert LOSSES["mean_absolute_error"](values, wanted) == pytest.approx(np.abs(error).mean())
    on = (wanted > 0).astype(np.float32)
    p = 1 / (1 + np.exp(-values[:, 0]))
    logistic = -(on * np.log(p) + (1 - on) * np.log(1 - p)).mean()
    assert LOSSES["sigmoid_cross_entropy"](values, on) == pytest.approx(logistic, rel=1e-5)
