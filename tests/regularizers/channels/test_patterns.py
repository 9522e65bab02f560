"""`trace_channels(prunable=, pinned=)`: what may change, in the user's words."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import regularizers as reg
from regularizers.patterns import matching


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.BatchNorm(True)(nn.relu(nn.Dense(11)(x)))
        return x + nn.Dense(x.shape[-1])(y)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(7, name="stem")(x)
        for i in range(2):
            x = Block(name=f"Block_{i}")(x)
        return nn.Dense(3, name="head")(nn.relu(nn.Dense(5, name="neck")(x)))


STEM, FIRST, SECOND, NECK = "stem", "Block_0/Dense_0", "Block_1/Dense_0", "neck"


@pytest.fixture(scope="module")
def model():
    x = jnp.ones((2, 4))
    return Net().apply, jax.eval_shape(Net().init, jax.random.key(0), x), x


def groups(model, **patterns):
    fn, variables, x = model
    return set(reg.trace_channels(fn, variables, x, **patterns).groups)


def test_all_groups_without_patterns(model):
    assert groups(model) == {STEM, FIRST, SECOND, NECK}


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("stem", {FIRST, SECOND, NECK}),
        ("params/stem", {FIRST, SECOND, NECK}),
        ("stem/bias", {FIRST, SECOND, NECK}),
        ("Block_0", {SECOND, NECK}),  # its last layer produces the residual stream
        ("Block_0/", {SECOND, NECK}),
        ("Block_0/Dense_0/bias", {STEM, SECOND, NECK}),
        ("Block_*", {NECK}),
        ("*/BatchNorm_0", {STEM, NECK}),
        ("batch_stats", {STEM, NECK}),
        ("batch_stats/Block_1", {STEM, FIRST, NECK}),
        ("params/Block_[1-9]/Dense_0/kernel", {FIRST, NECK}),  # and the stream that it takes in
        (["stem", "neck"], {FIRST, SECOND}),
        (("head",), {STEM, FIRST, SECOND}),  # no axis of it changes, so that neck may not either
        ("*", set()),
        ([], {STEM, FIRST, SECOND, NECK}),
    ],
)
def test_pinned(pattern, left, model):
    assert groups(model, pinned=pattern) == left


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("neck", {NECK}),
        ("params/neck/kernel", {NECK}),  # and its bias with it
        ("neck/bias", set()),
        (["stem/kernel", "*/kernel"], {STEM, NECK}),  # but not the norms
        ("Block_0", {FIRST}),  # the stream is others' as well
        ("Block_0/Dense_0", set()),  # the norm behind it produces as well
        (["Block_0/Dense_0", "Block_0/BatchNorm_0"], {FIRST}),
        ("*/Block_*", {FIRST, SECOND}),
        (["stem", "Block_*"], {STEM, FIRST, SECOND}),
        (["stem", "*/Dense_1"], {STEM}),  # all that produces the stream
        ("*", {STEM, FIRST, SECOND, NECK}),
    ],
)
def test_prunable(pattern, left, model):
    assert groups(model, prunable=pattern) == left


def test_what_is_both_prunable_and_pinned_is_pinned(model):
    both = {"prunable": ["neck", "stem", "Block_*"], "pinned": "stem"}
    assert groups(model, **both) == {FIRST, SECOND, NECK}
    assert groups(model, prunable="neck", pinned="neck") == set()


def test_reasons(model):
    fn, variables, x = model
    graph = reg.trace_channels(fn, variables, x, prunable="neck", pinned="Block_0")
    assert "axis 1: 7, fixed: pinned by the user" in graph.explain("stem/kernel")
    other = "fixed: produced by a layer that the user did not list as prunable"
    assert f"axis 1: 11, {other}" in graph.explain("Block_1/Dense_0/kernel")


@pytest.mark.parametrize("what", ["prunable", "pinned"])
@pytest.mark.parametrize(
    ("pattern", "near"),
    [("Blok_0", "'Block_0'"), ("nec", "'neck'"), ("params/stemm", "'params/stem'")],
)
def test_a_pattern_that_matches_nothing_lists_near_matches(what, pattern, near, model):
    message = rf"{what}='{pattern}' matches no layer or variable; did you mean .*{near}"
    with pytest.raises(ValueError, match=message):
        groups(model, **{what: ["stem", pattern]})


def test_patterns_match_whole_names():
    paths = ["params/a/kernel", "params/ab/kernel", "params/b/a/kernel", "batch_stats/a/mean"]
    assert matching("a", paths, "pinned") == {0, 3}
    assert matching("params/a", paths, "pinned") == {0}
    assert matching("a*", paths, "pinned") == {0, 1, 3}
    assert matching("*/a", paths, "pinned") == {0, 2, 3}
    assert matching("*/kernel", paths, "pinned") == {0, 1, 2}
    assert matching("params", paths, "pinned") == {0, 1, 2}
    with pytest.raises(ValueError, match=r"pinned='A' matches no layer or variable"):
        matching("A", paths, "pinned")  # case counts


def test_paths_of_nnx():
    class Two(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([nnx.Linear(4, 5, rngs=rngs), nnx.Linear(5, 7, rngs=rngs)])
            self.head = nnx.Linear(7, 3, rngs=rngs)

        def __call__(self, x):
            for layer in self.layers:
                x = nnx.relu(layer(x))
            return self.head(x)

    fn, state = reg.nnx_function(Two(nnx.Rngs(0)))
    x = jnp.ones((2, 4))
    whole = reg.trace_channels(fn, state, x)
    assert set(whole.groups) == {"layers/0", "layers/1"}
    for pattern, left in [
        ("layers/0", {"layers/1"}),
        ("layers/*", set()),
        ("layers", set()),
        ("*/1/bias", {"layers/0"}),
        ("head", {"layers/0"}),
    ]:
        assert set(reg.trace_channels(fn, state, x, pinned=pattern).groups) == left
    assert set(reg.trace_channels(fn, state, x, prunable="layers/1").groups) == {"layers/1"}
    with pytest.raises(ValueError, match=r"did you mean .*'layers/1"):
        reg.trace_channels(fn, state, x, prunable="layer/1")
