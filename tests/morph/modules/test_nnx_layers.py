"""NNX models at new widths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from native_models import IDS, IMAGE, TOKENS, Convolutions, ViT, shrink

import morph
import regularizers as reg


class Tied(nnx.Module):
    """A language model that shares its embedding, and one block that runs twice."""

    def __init__(self, rngs):
        self.embed = nnx.Embed(13, 7, rngs=rngs)
        self.block = nnx.Sequential(
            nnx.Linear(7, 11, rngs=rngs), nnx.relu, nnx.Linear(11, 7, rngs=rngs)
        )
        self.again = self.block

    def __call__(self, ids):
        x = self.embed(ids)
        x += self.block(x)
        return self.embed.attend(x + self.again(x))


class Cells(nnx.Module):
    """Recurrent cells of all kinds, one step after another by hand."""

    def __init__(self, rngs):
        self.cells = nnx.List(
            [
                nnx.LSTMCell(7, 8, rngs=rngs),
                nnx.OptimizedLSTMCell(8, 9, rngs=rngs),
                nnx.GRUCell(9, 10, rngs=rngs),
                nnx.SimpleCell(10, 6, rngs=rngs),
            ]
        )
        self.head = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        rngs = nnx.Rngs(0)  # the cells start at zero, but ask for a stream
        carries = [cell.initialize_carry(x[:, 0].shape, rngs) for cell in self.cells]
        for t in range(2):
            y = x[:, t]
            for i, cell in enumerate(self.cells):
                carries[i], y = cell(carries[i], y)
        return self.head(y)


class Recurrent(nnx.Module):
    """Layers that scan over cells, in both directions."""

    def __init__(self, rngs):
        self.both = nnx.Bidirectional(
            nnx.RNN(nnx.GRUCell(7, 8, rngs=rngs), rngs=rngs),
            nnx.RNN(nnx.LSTMCell(7, 9, rngs=rngs), rngs=rngs),
            rngs=rngs,
        )
        self.head = nnx.Linear(17, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.both(x))


class Adapted(nnx.Module):
    """Einsum, a general linear layer, a low-rank adapter."""

    def __init__(self, rngs):
        self.einsum = nnx.Einsum("abc,cd->abd", (7, 8), (8,), rngs=rngs)
        self.general = nnx.LinearGeneral(8, (3, 4), rngs=rngs)
        self.back = nnx.LinearGeneral((3, 4), 6, axis=(-2, -1), rngs=rngs)
        self.lora = nnx.LoRALinear(6, 5, lora_rank=4, rngs=rngs)

    def __call__(self, x):
        return self.lora(nnx.relu(self.back(nnx.relu(self.general(nnx.relu(self.einsum(x)))))))


NNX = {
    "convolutions": (Convolutions, IMAGE),
    "tied": (Tied, IDS),
    "cells": (Cells, TOKENS),
    "recurrent": (Recurrent, TOKENS),
    "adapted": (Adapted, TOKENS),
    "vit": (ViT, IMAGE),
}


@nnx.jit
def run(model, x):
    return model(x)


def randomize(model):
    """Statistics and biases that are not zero or one."""
    rng = np.random.default_rng(0)
    state = nnx.state(model, nnx.Not(nnx.RngState))
    values = jax.tree.map(
        lambda a: jnp.asarray(np.abs(rng.normal(size=a.shape)) * 0.5 + 0.1, a.dtype), state
    )
    nnx.update(model, values)
    return model


@pytest.mark.parametrize("name", NNX)
def test_nnx_equals_compact(name):
    make, x = NNX[name]
    model = randomize(make(nnx.Rngs(params=0, dropout=1, carry=2)))
    fn, variables = reg.nnx_function(model)
    arch = shrink(fn, variables, x)
    assert arch.resized == set(arch.groups)
    model.eval()
    small = morph.native(model, arch, x)
    assert type(small) is type(model)
    expected = jax.jit(morph.compact(fn, arch))(arch.take(variables), x)
    np.testing.assert_allclose(run(small, x), expected, rtol=1e-6, atol=1e-6)
    # Its own variables, too, are the architecture's.
    _, own = reg.nnx_function(small)
    assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, arch.take(variables))
    # The seed is as it was.
    jax.tree.map(np.testing.assert_array_equal, reg.nnx_function(model)[1], variables)


def test_nnx_train_mode_updates_statistics():
    model = Convolutions(nnx.Rngs(params=0, dropout=1))
    fn, variables = reg.nnx_function(model)
    arch = shrink(fn, variables, IMAGE)
    model.train()
    small = morph.native(model, arch, IMAGE, train=True)
    assert not small.dropout.deterministic
    assert not small.norm.use_running_average
    expected, updates = morph.compact(fn, arch)(
        arch.take(variables), IMAGE, train=True, mutable=["batch_stats"]
    )
    np.testing.assert_allclose(run(small, IMAGE), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(
        small.norm.mean[...], updates["batch_stats"]["norm"]["mean"], rtol=1e-6
    )
    np.testing.assert_array_equal(model.norm.mean[...], 0.0)  # the seed's does not


def test_nnx_random_streams_stay():
    model = Convolutions(nnx.Rngs(params=0, dropout=1), rate=0.5)
    arch = shrink(*reg.nnx_function(model), IMAGE)
    one, other = (morph.native(model, arch, IMAGE) for _ in range(2))
    assert one.dropout.rngs.key[...] == model.dropout.rngs.key[...]
    first = one(IMAGE)
    np.testing.assert_array_equal(first, other(IMAGE))
    assert np.any(first != one(IMAGE))  # the stream has moved on
    assert model.dropout.rngs.count[...] == 0  # and the seed's has not
    one.eval()
    np.testing.assert_array_equal(one(IMAGE), one(IMAGE))


def test_nnx_attributes_follow_the_variables():
    model = Convolutions(nnx.Rngs(0))
    fn, variables = reg.nnx_function(model)
    small = morph.native(model, shrink(fn, variables, IMAGE), IMAGE)
    assert (small.stem.out_features, small.norm.num_features) == (7, 7)
    assert (small.depthwise.feature_group_count, small.depthwise.kernel_shape) == (7, (3, 3, 1, 7))
    assert small.up.in_features == 7
    assert small.grouped.in_features == small.up.out_features
    assert small.head.in_features == small.head.kernel.shape[0]
    assert model.stem.out_features == 10


def test_nnx_user_attributes_change_only_if_the_call_needs_it():
    model = ViT(nnx.Rngs(0))
    fn, variables = reg.nnx_function(model)
    small = morph.native(model, shrink(fn, variables, IMAGE), IMAGE)
    assert small.width == 8
    assert [(b.num_heads, b.shape, b.unused) for b in small.blocks] == [(2, (2, 3), 12)] * 2
    assert [(b.num_heads, b.shape) for b in model.blocks] == [(3, (3, 4))] * 2


def test_nnx_shared_modules_stay_shared():
    model = Tied(nnx.Rngs(0))
    small = morph.native(model, shrink(*reg.nnx_function(model), IDS), IDS)
    assert small.again is small.block
    assert small.block.layers[0].out_features == 7


class Transformer(nnx.Module):
    """Norms and attention of Flax; widths are arguments, so that it can be built small."""

    def __init__(self, width, heads, head_width, hidden, rngs):
        self.embed = nnx.Linear(7, width, rngs=rngs)
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            heads, width, heads * head_width, decode=False, normalize_qk=True, rngs=rngs
        )
        self.rms = nnx.RMSNorm(width, rngs=rngs)
        self.up, self.down = (
            nnx.Linear(width, hidden, rngs=rngs),
            nnx.Linear(hidden, width, rngs=rngs),
        )
        self.groups = nnx.GroupNorm(width, num_groups=2, rngs=rngs)
        self.head = nnx.Linear(width, 3, rngs=rngs)

    def __call__(self, x):
        x = self.embed(x)
        x = x + self.attention(self.norm(x))
        x = x + self.down(nnx.gelu(self.up(self.rms(x))))
        return self.head(self.groups(x))


def test_nnx_with_norms_equals_a_model_built_at_the_new_widths():
    # A native model divides by its own widths, so that one built by hand is what to compare with.
    model = Transformer(10, 3, 4, 9, nnx.Rngs(0))
    fn, variables = reg.nnx_function(model)
    graph = reg.trace_channels(fn, variables, TOKENS)
    # One of five goes; the two groups of the group norm stay.
    alive = {n: (np.arange(w) % 5 != 1) | (w == 2) for n, w in graph.widths.items()}
    arch = morph.shrink(graph, alive, inexact=True)
    small = morph.native(model, arch, TOKENS, rescale_means=True)
    heads, head_width = (small.attention.num_heads, small.attention.head_dim)
    assert (heads, head_width) == (2, 3)
    width = small.embed.out_features
    hidden = small.up.out_features
    assert (width, hidden) == (8, 7)
    built = Transformer(width, heads, head_width, hidden, nnx.Rngs(0))
    nnx.update(built, nnx.state(small))
    assert nnx.graphdef(built) == nnx.graphdef(small)
    np.testing.assert_array_equal(run(small, TOKENS), run(built, TOKENS))


def test_nnx_decode_caches_are_sliced():
    layer = nnx.MultiHeadAttention(4, 7, 12, 7, decode=True, rngs=nnx.Rngs(0))
    layer.init_cache((2, 5, 7))
    x = TOKENS[:, :1]
    fn, variables = reg.nnx_function(layer)
    arch = shrink(fn, variables, x, mutable=["cache"])
    assert arch.resized
    small = morph.native(layer, arch, x, rescale_means=True)
    assert small.cached_key.shape == (2, 5, small.num_heads, small.head_dim)
    assert small(x).shape == (2, 1, 7)
