import jax
import jax.numpy as jnp
import numpy as np
import pytest
from every_axis import ALIVE, MODEL, X, assert_same

import morph
import regularizers as reg
from morph import Architecture, ArchitectureError
from regularizers.primitives.axes import Product, Sum

# What it is


def test_says_what_every_group_became(shrunk):
    assert shrunk.widths == {"left": 3, "right": 4, "hidden": 4}
    assert shrunk.seed_widths == {"left": 5, "right": 7, "hidden": 6}
    assert shrunk.groups["left"].parents == (0, 2, 3)
    assert shrunk.resized == {"left", "right", "hidden"}
    assert shrunk.shape("params/norm/scale") == (7,)
    assert shrunk.shape("params/hidden/kernel") == (2 * 3 * 7, 4)
    assert shrunk.variables["params/hidden/kernel"].axes == (
        Product((6, Sum(("left", "right")))),
        "hidden",
    )
    assert str(shrunk).splitlines()[1].split() == ["left", "5", "3", "resized"]


def test_of_seed_changes_nothing(graph, variables):
    seed = Architecture.of_seed(graph)
    assert seed.resized == frozenset()
    assert seed.widths == graph.widths
    assert_same(seed.take(variables), variables)
    assert str(seed).splitlines()[1].split() == ["left", "5", "5"]


def test_counts_of_layers_equal_those_of_the_costs(graph, shrunk):
    for arch in (shrunk, Architecture.of_seed(graph)):
        assert sum(arch.flops().values()) == reg.flops(graph)(arch.widths)
        assert sum(arch.parameters().values()) == reg.model_size(graph)(arch.widths)


def test_abstract_is_what_take_would_give(graph, shrunk, variables):
    small = shrunk.abstract(variables)
    assert small == jax.eval_shape(shrunk.take, variables)
    fresh = shrunk.with_parents({"left": (0, -1, -1, 2)}).abstract(variables)
    assert fresh["params"]["left"]["kernel"].shape == (3, 1, 4, 4)


def test_compact_function_equals_the_masked_one(graph, shrunk, variables):
    masked = graph.mask(variables, ALIVE)
    small = morph.compact(MODEL.apply, shrunk)(shrunk.take(variables), X)
    np.testing.assert_allclose(small, MODEL.apply(masked, X), rtol=1e-5)


# Chaining


def seed_of(architecture, variables):
    """The architecture that changes nothing about the network that another one made."""
    small_fn = morph.compact(MODEL.apply, architecture)
    return Architecture.of_seed(reg.trace_channels(small_fn, architecture.abstract(variables), X))


def test_chained_shrinks_are_one(graph, shrunk, variables):
    second = seed_of(shrunk, variables).with_parents({"left": (2, 0), "hidden": (0, 1, 3)})
    both = shrunk.then(second)
    assert both.widths == {"left": 2, "right": 4, "hidden": 3}
    assert both.seed_widths == graph.widths
    assert both.groups["left"].parents == (3, 0)
    assert_same(both.take(variables), second.take(shrunk.take(variables)))


def test_a_shrink_and_clones_are_one(graph, shrunk, variables):
    cost = reg.flops(graph)
    wide = morph.expand(seed_of(shrunk, variables), cost, cost(), warm=True)
    both = shrunk.then(wide)
    assert both.width_multiplier == wide.width_multiplier > 1.0
    assert_same(both.take(variables), wide.take(shrunk.take(variables)))
    np.testing.assert_allclose(
        morph.compact(MODEL.apply, both)(both.take(variables), X),
        MODEL.apply(graph.mask(variables, ALIVE), X),
        rtol=1e-5,
    )


def test_clones_of_clones_keep_the_function(graph, variables):
    """Sequential takes divide twice, the chain once: other weights, the same function."""
    first = Architecture.of_seed(graph).with_parents({"hidden": (0, 0, 1, 2, 3, 4, 5)})
    second = seed_of(first, variables).with_parents({"hidden": (0, 1, 1, 2, 3, 4, 5, 6)})
    both = first.then(second)
    assert both.groups["hidden"].parents == (0, 0, 0, 1, 2, 3, 4, 5)
    for small in (both.take(variables), second.take(first.take(variables))):
        np.testing.assert_allclose(
            morph.compact(MODEL.apply, both)(small, X), MODEL.apply(variables, X), rtol=1e-5
        )


def test_fresh_channels_stay_fresh(shrunk, variables):
    second = seed_of(shrunk, variables).with_parents({"left": (0, -1, 2)})
    assert shrunk.then(second).groups["left"].parents == (0, -1, 3)


def test_chaining_merges_reports(shrunk, variables):
    first = shrunk.with_parents({}, report={"budget": 3, "cycle": 1})
    second = seed_of(shrunk, variables).with_parents({}, report={"cycle": 2})
    assert first.then(second).report == {"budget": 3, "cycle": 2}


# Files


def test_chains_must_fit(graph, shrunk):
    with pytest.raises(
        ArchitectureError, match="'left' ends with width 3 in the first, and starts with 5"
    ):
        shrunk.then(Architecture.of_seed(graph))
    variables = {"a": jnp.zeros((2, 3)), "b": jnp.zeros((3, 2))}
    other = reg.trace_channels(lambda v, x: x @ v["a"] @ v["b"], variables, jnp.zeros((1, 2)))
    with pytest.raises(ArchitectureError, match="cannot chain architectures: group 'a' is in only"):
        shrunk.then(Architecture.of_seed(other))
