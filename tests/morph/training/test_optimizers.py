"""Optimizers by name: they follow the gradient, decay kernels only, clip and warm up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morph.training.optimizers import OPTIMIZERS, make_optimizer, rate_schedule


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.promotes
def test_every_optimizer_follows_the_gradient_and_decays_kernels_only(name):
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    moved = {}
    for decay in (0.0, 0.5):
        tx = make_optimizer(name, 0.1, weight_decay=decay)
        gradient = jax.tree.map(lambda leaf: 0.1 * jnp.ones_like(leaf), params)
        updates, _ = tx.update(gradient, tx.init(params), params)
        moved[decay] = updates
        assert all(jnp.all(leaf < 0.0) for leaf in jax.tree.leaves(updates))
    np.testing.assert_array_equal(moved[0.0]["bias"], moved[0.5]["bias"])
    if name not in ("adam", "rmsprop", "lamb", "lars", "lion"):  # whose first step has one size
        assert jnp.all(moved[0.5]["kernel"] < moved[0.0]["kernel"])


@pytest.mark.promotes
def test_gradients_are_clipped_and_the_rate_warms_up():
    params = {"kernel": jnp.zeros((3, 4))}
    rate = rate_schedule(1.0, 10, warmup_steps=4)
    tx = make_optimizer("sgd", rate, weight_decay=0.0, clip_norm=0.5)
    state, sizes = tx.init(params), []
    for _ in range(6):
        updates, state = tx.update({"kernel": jnp.full((3, 4), 100.0)}, state, params)
        sizes.append(float(jnp.linalg.norm(updates["kernel"])))
    np.testing.assert_allclose(sizes[:5], 0.5 * np.asarray([0, 0.25, 0.5, 0.75, 1]), atol=1e-6)
    assert sizes[5] < sizes[4]
