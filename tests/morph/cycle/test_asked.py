"""What a configuration names: its cost, and its optimizer."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from morph.cycle.asked import configured_optimizer, shrink_to_of, target_cost
from morph.cycle.config import CycleConfig
from morph.errors import ConfigError


def test_a_target_is_a_cost_by_name_or_a_sum_of_some(traces):
    assert target_cost(CycleConfig(target="size"), traces.graph)() == 57
    assert target_cost(CycleConfig(target="flops"), traces.graph)() == 2 * (5 * 6 + 6 * 3)
    with pytest.raises(ConfigError, match=r"target: .*'flopz'.*did you mean 'flops'"):
        target_cost(CycleConfig(target="flopz"), traces.graph)


@pytest.mark.parametrize(("shrink_to", "goal"), [(None, 0.5 * 57), (0.25, 0.25 * 57)])
def test_without_a_goal_of_its_own_a_run_shrinks_to_its_budget(traces, shrink_to, goal):
    config = CycleConfig(target="size", budget=0.5, shrink_to=shrink_to)
    assert shrink_to_of(config, target_cost(config, traces.graph)) == pytest.approx(goal)


@pytest.mark.promotes
def test_the_optimizer_is_as_configured():
    config = CycleConfig(optimizer="sgd", clip_norm=1.0, weight_decay=0.0)
    tx = configured_optimizer(optax.constant_schedule(0.5), config)
    params = {"w": jnp.zeros(2)}
    updates, _ = tx.update({"w": jnp.asarray([30.0, 40.0])}, tx.init(params), params)
    np.testing.assert_allclose(updates["w"], [-0.3, -0.4], rtol=1e-6)
