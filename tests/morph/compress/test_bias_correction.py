"""What rounding shifts on average goes back into the biases."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import regularizers as reg
from morph.compress.bias_correction import bias_corrected
from morph.compress.plan import fixed_point_plan


def test_corrected_biases_take_back_what_rounding_shifts(case):
    """Each channel's mean is the float network's: exactly behind a norm, to a bias's step else."""
    apply, variables, x, graph = case
    exact = apply(variables, x)
    plan = fixed_point_plan(graph, variables, (x,), word_length=4)
    step = plan.weights["params/logits/bias"].step
    shifts, errors = [], []
    for own in (variables, bias_corrected(graph, plan, variables, (x,))):
        logits = plan.simulated(apply)(own, x)
        shifts.append(float(jnp.abs(logits.mean(0) - exact.mean(0)).max()))
        errors.append(float(jnp.square(logits - exact).mean()))
    assert shifts[1] < min(0.51 * step, shifts[0])
    assert errors[1] < errors[0]

    normed = nn.Sequential([nn.Conv(4, (3, 3), use_bias=False), nn.BatchNorm(True)])
    own = jax.jit(normed.init)(jax.random.key(1), x)
    graph = reg.trace_channels(normed.apply, own, x)
    plan = fixed_point_plan(graph, own, (x,), word_length=3)
    corrected = bias_corrected(graph, plan, own, (x,))
    found = [plan.simulated(normed.apply)(each, x).mean((0, 1, 2)) for each in (own, corrected)]
    expected = normed.apply(own, x).mean((0, 1, 2))
    np.testing.assert_allclose(found[1], expected, atol=1e-6)
    assert jnp.abs(found[0] - expected).max() > 1e-3
    with pytest.raises(ValueError, match="calibration set is empty"):
        bias_corrected(graph, plan, own, ())
