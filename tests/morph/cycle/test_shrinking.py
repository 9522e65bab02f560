"""Patterns name groups of the seed; of what is left of it, some groups may be gone."""

import jax.numpy as jnp
import pytest

import regularizers as reg
from morph.cycle.config import CycleConfig
from morph.cycle.shrinking import make_budget, make_floors, make_regularizer

SETTINGS = {
    "penalty": "a=gamma,b=group_lasso",
    "strengths": "a=0.5,b=2.0",
    "floors": "a=2,b=3",
}


def traced(*names):
    """A function of layers of those names: 5 wide each, and 3 outputs."""

    def fn(v, x):
        for name in names:
            x = jnp.tanh(x @ v[name])
        return x @ v["head"]

    variables = {name: jnp.ones((5, 5)) for name in names} | {"head": jnp.ones((5, 3))}
    return reg.trace_channels(fn, variables, jnp.ones((1, 5)))


@pytest.mark.parametrize("name", SETTINGS)
def test_a_pattern_may_match_nothing_only_where_its_groups_are_gone(name):
    config = CycleConfig(**{name: SETTINGS[name]}, blocks=False)
    whole, rest = traced("a", "b"), traced("a")

    def budget(graph, **left):
        regularizer = make_regularizer(config, graph, reg.flops(graph), **left)
        return make_budget(config, regularizer, reg.flops(graph)() / 2, 9, 3, **left)

    assert set(budget(whole).least) == {"a", "b"}
    assert set(budget(rest, left=True).least) == {"a"}
    with pytest.raises(ValueError, match="'b' matches no channel group"):
        budget(rest)


def test_floors_are_those_of_the_first_pattern_that_matches():
    config = CycleConfig(min_width=2, floors="a=4,*=3")
    assert make_floors(config, traced("a", "b")) == {"a": 4, "b": 3}
