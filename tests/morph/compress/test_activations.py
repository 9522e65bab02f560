"""Products of integers are those of the numbers that they stand for."""

import jax
import numpy as np
import pytest

from morph.compress import activations
from morph.compress.plan import fixed_point_plan


def test_integers_and_floats_agree(case):
    """Also integers that are summed as float64, at the word lengths where int32 suffices."""
    apply, variables, x, graph = case
    plan = fixed_point_plan(graph, variables, (x,), word_length=8)
    found = plan.simulated(apply)(variables, x)
    np.testing.assert_array_equal(plan.simulated(apply, exact=False)(variables, x), found)
    jaxpr = str(jax.make_jaxpr(plan.simulated(apply))(variables, x))
    assert jaxpr.count("preferred_element_type=int32") == 3
    mixed = fixed_point_plan(graph, variables, (x,), word_length=8, data_word_length=16)
    jaxpr = str(jax.make_jaxpr(mixed.simulated(apply))(variables, x))
    assert jaxpr.count("preferred_element_type=int32") == 3
    exact = jax.jit(mixed.simulated(apply))(variables, x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(activations, "ACCUMULATOR_BITS", 16)
        wide = jax.jit(mixed.simulated(apply))
        assert str(jax.make_jaxpr(wide)(variables, x)).count("preferred_element_type=float64") == 3
        np.testing.assert_array_equal(wide(variables, x), exact)
