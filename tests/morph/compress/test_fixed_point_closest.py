"""The closest fixed-point network is closer than what a search over kernels alone finds."""

import jax
import jax.numpy as jnp

from morph.compress.fixed_point_closest import closest
from morph.compress.plan import fixed_point_plan


def test_the_closest_is_closer_than_the_search_alone(case):
    apply, variables, x, graph = case
    exact = jax.nn.softmax(apply(variables, x))
    found = closest(apply, graph, variables, x, word_length=4)
    plain = fixed_point_plan(graph, variables, (x,), word_length=4)
    away = [
        float((exact * jnp.log(exact / jax.nn.softmax(plan.simulated(apply)(own, x)))).sum())
        for plan, own in ((found.plan, found.variables), (plain, variables))
    ]
    assert away[0] < away[1]
