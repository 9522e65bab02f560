"""Factorized kernels stand where dense ones stood, whatever the function does with them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_cases import assert_close, dense, factorized, normal

import morph
import regularizers as reg
from morph.kernels.factorized import is_factorized


class Network(nn.Module):
    """Convolutions, also grouped, attention, a tied table, casts."""

    @nn.compact
    def __call__(self, indices):
        embed = nn.Embed(30, 12)
        x = embed(indices)
        x = nn.relu(nn.Conv(12, (3,), feature_group_count=2)(x))
        x = x + nn.MultiHeadDotProductAttention(num_heads=2, dtype=jnp.bfloat16)(x, x)
        x = nn.relu(nn.ConvTranspose(12, (3,), strides=(2,))(x.astype(jnp.float32)))
        return embed.attend(x)


@pytest.mark.promotes
def test_a_whole_network_with_every_leaf_factorized():
    model, x = Network(), jnp.asarray([[0, 5, 29, 3, 8], [2, 7, 11, 1, 1]])
    variables = jax.jit(model.init)(jax.random.key(0), x)
    graph = reg.trace_channels(model.apply, variables, x)
    plan = morph.tensorize_plan(graph, variables, rank=2, cost="size")
    assert plan.left == {}
    cores = plan.factorize(variables)
    assert sum(map(is_factorized, jax.tree.leaves(cores, is_leaf=is_factorized))) == 7
    found = jax.jit(morph.tensorized(model.apply))(cores, x)
    assert_close(found, jax.jit(model.apply)(dense(cores), x), 0.02)  # attention in bfloat16


def test_bonds_are_channel_groups_and_shrink_with_the_channels():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(8, (3, 3))(x))
            x = nn.relu(nn.Conv(10, (3, 3))(x)).mean((1, 2))
            return nn.Dense(3)(x)

    model, x = Net(), normal(2, 5, 5, 4)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    variables["params"]["Conv_0"]["kernel"] = factorized("tucker2", (3, 3, 4, 8), "ssio")
    variables["params"]["Conv_1"]["kernel"] = factorized("cp", (3, 3, 8, 10), "ssio")
    fn = morph.tensorized(model.apply)
    graph = reg.trace_channels(fn, variables, x)
    assert sorted(graph.widths.values()) == [3, 3, 3, 8, 10]
    alive = {name: np.arange(width) % 3 != 1 for name, width in graph.widths.items()}
    arch = morph.shrink(graph, alive)
    small = arch.take(variables)
    assert small["params"]["Conv_0"]["kernel"].ranks == {"r_in": 2, "r_out": 2}
    assert small["params"]["Conv_1"]["kernel"].shape == (3, 3, 5, 7)
    found = jax.jit(morph.compact(fn, arch))(small, x)
    assert_close(found, jax.jit(fn)(graph.mask(variables, alive), x))
    ratio = reg.flops(graph)() / reg.flops(reg.trace_channels(model.apply, dense(variables), x))()
    assert ratio < 0.5


def test_reconstructed_is_the_same_function():
    variables, x = {"k": factorized("tt", (12, 20), "io")}, normal(5, 12)
    found = morph.tensorized(lambda v, x: x @ v["k"], mode="reconstructed")(variables, x)
    assert_close(found, x @ variables["k"].dense())


def test_an_unknown_mode():
    with pytest.raises(ValueError, match=r"mode must be one of factorized, .* found 'fast'"):
        morph.tensorized(lambda v, x: x, mode="fast")
