"""The settings that take patterns, each with every spelling."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import morph
import regularizers as reg
from morph.compress.cluster import shared
from morph.compress.plan import fixed_point_plan
from morph.compress.sparsities import matches
from morph.compress.ternary import Ternary, ternarized
from regularizers.channels.naming import by_group

LAYER = ("layers_0", "layers_0/", "layers_0/kernel", "params/layers_0", "params/layers_0/kernel")
SPELLINGS = (*LAYER, "params/layers_0/", "*")


@pytest.fixture(scope="module")
def traced():
    model = nn.Sequential([nn.Dense(5), nn.Dense(7), nn.Dense(3)])
    x = jnp.ones((1, 11))
    return model.apply, jax.jit(model.init)(jax.random.key(0), x), x


def _pinned(traced, pattern):
    return "layers_0" not in reg.trace_channels(*traced, pinned=pattern).groups


def _prunable(traced, pattern):
    return "layers_0" in reg.trace_channels(*traced, prunable=pattern).groups


def _by_group(traced, pattern):
    return "layers_0" in by_group(reg.trace_channels(*traced), {pattern: 1}, "penalties")


def _sparsities(traced, pattern):
    return "layers_0/kernel" in matches(pattern, ["layers_0/kernel", "layers_1/kernel"], "pruning")


def _tensorize(traced, pattern):
    plan = morph.tensorize_plan(
        reg.trace_channels(*traced), traced[1], kind={pattern: "svd"}, rank=1
    )
    return "params/layers_0/kernel" in plan.kernels


def _word_length(traced, pattern):
    _, variables, x = traced
    graph, words = reg.trace_channels(*traced), {pattern: 5}
    plan = fixed_point_plan(graph, variables, (x,), word_length=words, activations=False)
    return plan.weights["params/layers_0/kernel"].word_length == 5


def _ternary(traced, pattern):
    graph = reg.trace_channels(*traced)
    found = ternarized(graph, traced[1], kernels=pattern, keep=())
    return isinstance(found["params"]["layers_0"]["kernel"], Ternary)


def _clusters(traced, pattern):
    kernel = shared(traced[1]["params"], {pattern: 2})["layers_0"]["kernel"]
    return kernel.centroids.shape == (2,)


SETTINGS = {
    "pinned": _pinned,
    "prunable": _prunable,
    "penalties, strengths, floors": _by_group,
    "sparsities": _sparsities,
    "clusters": _clusters,
    "tensorize": _tensorize,
    "word lengths": _word_length,
    "ternary kernels": _ternary,
}


@pytest.mark.parametrize("pattern", SPELLINGS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_takes_every_spelling(setting, pattern, traced):
    assert SETTINGS[setting](traced, pattern)


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_matches_nothing_lists_near_matches(setting, traced):
    with pytest.raises(ValueError, match=r"'layer_0'.*did you mean 'layers_0"):
        SETTINGS[setting](traced, "layer_0")
