"""Linen models at new widths."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from corpus.soundness import fill
from native_models import IDS, IMAGE, TOKENS, LinenTied, shrink

import morph
import regularizers as reg


class LinenConvolutions(nn.Module):
    """The same, in Linen, with group norm."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Conv(10, (3, 3))(x)))
        x += nn.relu(nn.Conv(10, (3, 3), feature_group_count=10)(x))
        x = nn.relu(nn.ConvTranspose(12, (2, 2), strides=(2, 2))(x))
        x = nn.relu(nn.Conv(6, (3, 3), feature_group_count=3)(x))
        return nn.Dense(5)(x.reshape(x.shape[0], -1))


class LinenRecurrent(nn.Module):
    """Layers that scan over cells."""

    @nn.compact
    def __call__(self, x):
        x = nn.RNN(nn.OptimizedLSTMCell(8))(x)
        return nn.Dense(3)(nn.RNN(nn.GRUCell(9))(x))


class LinenHeads(nn.Module):
    """Attention of the user's own, as a dataclass."""

    width: int
    num_heads: int

    @nn.compact
    def __call__(self, x):
        shape = (*x.shape[:-1], self.num_heads, self.width // self.num_heads)
        q, k, v = (nn.Dense(self.width, name=n)(x).reshape(shape) for n in "qkv")
        weights = nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k))
        y = jnp.einsum("bhts,bshd->bthd", weights, v)
        return nn.Dense(x.shape[-1])(y.reshape(*x.shape[:-1], -1))


class LinenBlocks(nn.Module):
    """Two remat blocks, the second given as an attribute; general layers; a parameter."""

    last: nn.Module

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(12)(x)
        x += self.param("shift", nn.initializers.normal(), x.shape[1:])[None]
        x += nn.remat(LinenHeads)(12, 3)(x)
        x = nn.DenseGeneral((3, 4))(self.last(x))
        x = nn.DenseGeneral(6, axis=(-2, -1))(nn.relu(x))
        return nn.Einsum((6, 4), "abc,cd->abd")(nn.relu(x))


LINEN = {
    "convolutions": (LinenConvolutions(), IMAGE),
    "tied": (LinenTied(), IDS),
    "recurrent": (LinenRecurrent(), TOKENS),
    "blocks": (LinenBlocks(nn.Sequential([nn.Dense(11), nn.relu])), TOKENS),
}


@pytest.mark.parametrize("name", LINEN)
def test_linen_equals_compact(name):
    model, x = LINEN[name]
    variables = fill(jax.eval_shape(model.init, jax.random.key(0), x), np.random.default_rng(0))
    arch = shrink(model.apply, variables, x)
    assert arch.resized == set(arch.groups)
    small = morph.native(model, arch, x)
    assert isinstance(small, type(model))
    taken = arch.take(variables)
    expected = jax.jit(morph.compact(model.apply, arch))(taken, x)
    np.testing.assert_allclose(jax.jit(small.apply)(taken, x), expected, rtol=1e-6, atol=1e-6)
    fresh = jax.eval_shape(small.init, jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, taken)
    # The seed is as it was.
    again = jax.eval_shape(model.init, jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, again) == jax.tree.map(jnp.shape, variables)


def test_linen_train_mode():
    model = LinenConvolutions()
    variables = jax.jit(model.init)(jax.random.key(0), IMAGE)
    arch = shrink(model.apply, variables, IMAGE)
    train = {"train": True, "mutable": ["batch_stats"]}
    small = morph.native(model, arch, IMAGE, **train)
    ours = small.apply(arch.take(variables), IMAGE, **train)
    theirs = morph.compact(model.apply, arch)(arch.take(variables), IMAGE, **train)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), ours, theirs)


def test_linen_methods_and_nesting():
    model = LinenTied()
    variables = jax.jit(model.init)(jax.random.key(0), IDS)
    arch = shrink(model.apply, variables, IDS)
    small, taken = morph.native(model, arch, IDS), arch.take(variables)
    code = small.apply(taken, IDS, method="encode")
    assert code.shape == (*IDS.shape, arch.shape("params/embed/embedding")[-1])
    bound = small.bind(taken)
    np.testing.assert_array_equal(bound.encode(IDS), code)

    class Outer(nn.Module):
        inner: nn.Module

        def __call__(self, ids):
            return self.inner(ids)

    nested = Outer(small.clone())
    fresh = jax.jit(nested.init)(jax.random.key(0), IDS)
    assert jax.tree.map(jnp.shape, fresh["params"]["inner"]) == jax.tree.map(
        jnp.shape, taken["params"]
    )
    np.testing.assert_array_equal(
        nested.apply({"params": {"inner": taken["params"]}}, IDS), small.apply(taken, IDS)
    )


class LinenTransformer(nn.Module):
    """Norms and attention of Flax; widths are arguments, so that it can be built small."""

    width: int
    heads: int
    head_width: int
    groups: int = 2

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(self.width)(x)
        x += nn.MultiHeadDotProductAttention(
            self.heads, qkv_features=self.heads * self.head_width, out_features=self.width
        )(nn.LayerNorm()(x))
        x = nn.GroupNorm(num_groups=self.groups)(x)
        return nn.Dense(3)(nn.RMSNorm()(x))


def test_linen_with_norms_equals_a_model_built_at_the_new_widths():
    model = LinenTransformer(10, 3, 4)
    variables = fill(
        jax.eval_shape(model.init, jax.random.key(0), TOKENS), np.random.default_rng(0)
    )
    graph = reg.trace_channels(model.apply, variables, TOKENS)
    # One of five goes; the two groups of the group norm stay.
    alive = {n: (np.arange(w) % 5 != 1) | (w == 2) for n, w in graph.widths.items()}
    arch = morph.shrink(graph, alive, inexact=True)
    taken = arch.take(variables)
    small = morph.native(model, arch, TOKENS, rescale_means=True)
    width = arch.shape("params/Dense_0/kernel")[-1]
    _, heads, head_width = arch.shape("params/MultiHeadDotProductAttention_0/query/kernel")
    assert (width, heads, head_width) == (8, 2, 3)
    built = LinenTransformer(width, heads, head_width)
    np.testing.assert_array_equal(small.apply(taken, TOKENS), built.apply(taken, TOKENS))
