"""Expand: the largest multiplier within a budget; warm, the function stays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import morph
import regularizers as reg
from experiments import networks
from morph.architecture.expand import multiplied, width_multiplier


def traced(name):
    model = networks.build(name, input_shape=(13, 11, 3), num_classes=7, width=0.5)
    x = jax.ShapeDtypeStruct((1, 13, 11, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    return model, variables, x, reg.trace_channels(model.apply, variables, x)


@pytest.fixture(scope="module")
def resnet():
    return traced("resnet8")


def only(width, *alive):
    return np.isin(np.arange(width), alive)


# Expand


@pytest.mark.parametrize(
    ("multiplier", "round_to", "widths"),
    [
        (1.0, 1, {"a": 6, "b": 17}),
        (0.5, 1, {"a": 3, "b": 9}),
        (1.25, 1, {"a": 8, "b": 21}),
        (1.0, 4, {"a": 8, "b": 16}),
        (0.0, 1, {"a": 1, "b": 1}),
        (0.01, 8, {"a": 8, "b": 8}),
    ],
)
def test_widths_are_rounded_and_never_zero(multiplier, round_to, widths):
    assert multiplied({"a": 6, "b": 17}, multiplier, round_to) == widths


def next_larger(widths, multiplier, round_to):
    """The widths at the next multiplier where the rounding changes any of them."""
    now = multiplied(widths, multiplier, round_to)
    steps = [round_to * (now[name] / round_to + 0.5) / width for name, width in widths.items()]
    return multiplied(widths, min(steps) * (1 + 1e-12), round_to)


@pytest.mark.parametrize("round_to", [1, 4, 7])
@pytest.mark.parametrize("share", [0.21, 0.5, 1.0, 3.3])
@pytest.mark.parametrize("build", [reg.flops, reg.model_size], ids=["flops", "size"])
def test_multiplier_is_the_largest_within_the_budget(resnet, build, share, round_to):
    graph = resnet[3]
    cost = build(graph)
    rng = np.random.default_rng(0)
    alive = {name: rng.random(width) < 0.7 for name, width in graph.widths.items()}
    arch = morph.shrink(graph, alive)
    budget = share * cost()
    if budget < cost(dict.fromkeys(graph.widths, round_to)):
        with pytest.raises(morph.BudgetError, match="cannot meet a budget"):
            morph.expand(arch, cost, budget, round_to=round_to)
        return
    wide = morph.expand(arch, cost, budget, round_to=round_to)
    assert cost(wide.widths) <= budget
    assert all(width > 0 and width % round_to == 0 for width in wide.widths.values())
    larger = next_larger(arch.widths, wide.width_multiplier, round_to)
    assert larger != wide.widths
    assert all(larger[name] >= width for name, width in wide.widths.items())
    assert cost(larger) > budget


def test_the_seed_at_its_own_cost_stays_the_seed(resnet):
    graph = resnet[3]
    seed = morph.Architecture.of_seed(graph)
    same = morph.expand(seed, reg.flops(graph), reg.flops(graph)())
    assert same.resized == frozenset()
    assert same.mean_widths == seed.widths
    assert 1.0 <= same.width_multiplier < 1.1


def test_new_channels_are_fresh_or_clones_in_turn(chain):
    arch = morph.shrink(chain, {"a": only(6, 1, 4)})
    cost = reg.flops(chain)
    fresh = morph.expand(arch, cost, cost({name: 3 * w for name, w in arch.widths.items()}))
    assert fresh.groups["a"].parents == (1, 4, -1, -1, -1, -1)
    warm = morph.expand(
        arch, cost, cost({name: 3 * w for name, w in arch.widths.items()}), warm=True
    )
    assert warm.groups["a"].parents == (1, 4, 1, 4, 1, 4)
    assert warm.width_multiplier == fresh.width_multiplier >= 3.0
    narrow = morph.expand(arch, cost, cost(dict.fromkeys(arch.widths, 1)))
    assert narrow.groups["a"].parents == (1,)


def test_the_cost_may_be_any_function_of_widths():
    widths = {"a": 10, "b": 4}
    multiplier = width_multiplier(widths, lambda w: max(w["a"], 3 * w["b"]), 30)
    assert multiplied(widths, multiplier) == {"a": 26, "b": 10}
    # A cost that the widths do not change is always within its budget.
    assert width_multiplier(widths, lambda w: 1.0, 1.0) == 1.0


def test_impossible_budgets_are_refused(chain):
    cost = reg.flops(chain)
    arch = morph.Architecture.of_seed(chain)
    least = 2 * (4 + 1 + 1 + 3)
    assert morph.expand(arch, cost, least).widths == {"a": 1, "b": 1, "c": 1}
    with pytest.raises(
        morph.BudgetError, match=r"a budget of 17: the narrowest widths \(1 per group\) cost 18"
    ):
        morph.expand(arch, cost, least - 1)
    with pytest.raises(morph.BudgetError, match=r"the narrowest widths \(8 per group\) cost"):
        morph.expand(arch, cost, least, round_to=8)
    with pytest.raises(
        morph.BudgetError, match=r"a budget of 1e\+308 sets no limit: .* Ask for less"
    ):
        morph.expand(arch, cost, 1e308)
