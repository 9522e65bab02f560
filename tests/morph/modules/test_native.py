import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from corpus.soundness import fill
from flax import nnx

import morph
import regularizers as reg
from morph.errors import NativeError
from morph.modules.linen_layers import ROWS as LINEN_ROWS
from morph.modules.nnx_layers import ROWS as NNX_ROWS

IMAGE = jax.random.normal(jax.random.key(1), (2, 4, 4, 3))
TOKENS = jax.random.normal(jax.random.key(2), (2, 5, 7))
IDS = jnp.asarray([[1, 4, 2], [0, 12, 3]])


# ---- NNX ---------------------------------------------------------------------------------------


class Convolutions(nnx.Module):
    """A residual depthwise convolution, a grouped one, a transposed one, flatten, dense."""

    def __init__(self, rngs, rate=0.0):
        self.stem = nnx.Conv(3, 10, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(10, rngs=rngs)
        self.depthwise = nnx.Conv(10, 10, (3, 3), feature_group_count=10, rngs=rngs)
        self.up = nnx.ConvTranspose(10, 12, (2, 2), strides=(2, 2), rngs=rngs)
        self.grouped = nnx.Conv(12, 6, (3, 3), feature_group_count=3, rngs=rngs)
        self.dropout = nnx.Dropout(rate, rngs=rngs)
        self.head = nnx.Linear(8 * 8 * 6, 5, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.stem(x)))
        x += nnx.relu(self.depthwise(x))
        x = nnx.relu(self.grouped(nnx.relu(self.up(x))))
        return self.head(self.dropout(x.reshape(x.shape[0], -1)))


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


class Heads(nnx.Module):
    """Attention of the user's own that reshapes by numbers of its own."""

    def __init__(self, width, heads, rngs):
        self.num_heads = heads
        self.shape = (heads, width // heads)
        self.unused = width
        self.qkv = nnx.Linear(width, 3 * width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        b, t, _ = x.shape
        q, k, v = jnp.split(self.qkv(x), 3, axis=-1)
        q = q.reshape(b, t, *self.shape)
        k, v = (a.reshape(b, t, self.num_heads, -1) for a in (k, v))
        weights = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k))
        return self.out(jnp.einsum("bhts,bshd->bthd", weights, v).reshape(b, t, -1))


class ViT(nnx.Module):
    """Patches, positions, two blocks of `Heads`."""

    def __init__(self, rngs):
        self.width = 12
        self.patches = nnx.Conv(3, 12, (2, 2), strides=(2, 2), rngs=rngs)
        self.positions = nnx.Param(jax.random.normal(rngs.params(), (1, 4, 12)))
        self.blocks = nnx.List([Heads(12, 3, rngs) for _ in range(2)])
        self.head = nnx.Linear(12, 5, rngs=rngs)

    def __call__(self, x):
        x = self.patches(x)
        x = x.reshape(x.shape[0], -1, self.width) + self.positions
        for block in self.blocks:
            x = x + block(x)
        return self.head(x.sum(1))


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


def two_thirds(graph):
    """Every third channel goes, from the second on; a group of 3 keeps 2, of 4 keeps 3."""
    return {name: np.arange(width) % 3 != 1 for name, width in graph.widths.items()}


def shrink(fn, variables, *inputs, **static):
    graph = reg.trace_channels(fn, variables, *inputs, **static)
    return morph.shrink(graph, two_thirds(graph), inexact=True)


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
    small = morph.native(model, arch, TOKENS)
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
    small = morph.native(layer, arch, x)
    assert small.cached_key.shape == (2, 5, small.num_heads, small.head_dim)
    assert small(x).shape == (2, 1, 7)


class Fixed(nnx.Module):
    """Reshapes by a number in its code."""

    def __init__(self, rngs):
        self.dense, self.head = nnx.Linear(7, 12, rngs=rngs), nnx.Linear(12, 3, rngs=rngs)

    def __call__(self, x):
        y = self.dense(x).reshape(*x.shape[:-1], 4, 3)
        return self.head(nnx.relu(y.swapaxes(-1, -2)).reshape(*x.shape[:-1], 12))


class Silent(Fixed):
    """Reshapes by a number in its code that still divides the new width."""

    def __call__(self, x):
        y = self.dense(x).reshape(*x.shape[:-1], 2, -1)
        y = nnx.softmax(y, -1)
        return self.head(y.reshape(*x.shape[:-1], -1))


def test_code_that_fixes_a_width_is_an_error_that_names_the_line():
    model = Fixed(nnx.Rngs(0))
    arch = shrink(*reg.nnx_function(model), TOKENS)
    with pytest.raises(NativeError, match=r"Fixed .*reshape.*test_native\.py:\d+ \(__call__\)"):
        morph.native(model, arch, TOKENS)
    with pytest.raises(NativeError, match=r"morph\.compact\(fn, architecture\) runs any model"):
        morph.native(model, arch, TOKENS)


def test_code_that_computes_something_else_is_an_error():
    model = Silent(nnx.Rngs(0))
    fn, variables = reg.nnx_function(model)
    graph = reg.trace_channels(fn, variables, TOKENS)
    heads = next(name for name, width in graph.widths.items() if width == 2)
    arch = morph.shrink(graph, {heads: np.array([True, False])}, inexact=True)
    with pytest.raises(
        NativeError, match=r"should have shape \[2, 5, 1, 6\], found \[2, 5, 2, 3\]"
    ):
        morph.native(model, arch, TOKENS)


class Scaled(Heads):
    """Divides by a root of a quotient of two attributes, only one of which is used in shapes."""

    def __call__(self, x):
        return super().__call__(x / np.sqrt(self.unused // self.num_heads))


def test_numbers_that_mix_old_and_new_widths_are_an_error():
    model = Scaled(12, 3, nnx.Rngs(0))
    x = jnp.ones((2, 5, 12))
    arch = shrink(*reg.nnx_function(model), x)
    with pytest.raises(NativeError, match=r"depend on Scaled\.unused, which may be any of"):
        morph.native(model, arch, x)


class Square(nnx.Module):
    """Two attributes of which the call shows only the product."""

    def __init__(self, rngs):
        self.one, self.two = nnx.Linear(7, 4, rngs=rngs), nnx.Linear(7, 4, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)
        self.rows = self.columns = 4

    def __call__(self, x):
        y = nnx.relu(self.one(x)) + nnx.relu(self.two(x)).sum(-1, keepdims=True)
        return self.head(jnp.broadcast_to(y, (*x.shape[:-1], self.rows * self.columns // 4)))


def test_more_than_one_choice_is_an_error():
    model = Square(nnx.Rngs(0))
    arch = shrink(*reg.nnx_function(model), TOKENS)
    with pytest.raises(NativeError, match=r"more than one choice fits for Square\.rows"):
        morph.native(model, arch, TOKENS)


def test_nnx_without_inputs():
    model = Convolutions(nnx.Rngs(0))
    fn, variables = reg.nnx_function(model)
    arch = shrink(fn, variables, IMAGE)
    small, checked = morph.native(model, arch), morph.native(model, arch, IMAGE)
    assert nnx.graphdef(small) == nnx.graphdef(checked)
    vit = ViT(nnx.Rngs(0))
    with pytest.raises(NativeError, match=r"only a call can tell: pass example inputs"):
        morph.native(vit, shrink(*reg.nnx_function(vit), IMAGE))


def test_nnx_in_training_goes_on():
    model = Convolutions(nnx.Rngs(params=0, dropout=1))
    arch = shrink(*reg.nnx_function(model), IMAGE)
    small = morph.native(model, arch, IMAGE)

    @nnx.jit
    def loss_and_gradient(model):
        return nnx.value_and_grad(lambda m: jnp.sum(m(IMAGE) ** 2))(model)

    value, gradient = loss_and_gradient(small)
    assert np.isfinite(value)
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, nnx.state(small, nnx.Param))


# ---- Linen -------------------------------------------------------------------------------------


class LinenConvolutions(nn.Module):
    """The same, in Linen, with group norm."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Conv(10, (3, 3))(x)))
        x += nn.relu(nn.Conv(10, (3, 3), feature_group_count=10)(x))
        x = nn.relu(nn.ConvTranspose(12, (2, 2), strides=(2, 2))(x))
        x = nn.relu(nn.Conv(6, (3, 3), feature_group_count=3)(x))
        return nn.Dense(5)(x.reshape(x.shape[0], -1))


class LinenTied(nn.Module):
    """A tied embedding, made in `setup`; a method besides `__call__`."""

    def setup(self):
        self.embed = nn.Embed(13, 7)
        self.block = nn.Sequential([nn.Dense(11), nn.relu, nn.Dense(7)])

    def encode(self, ids):
        x = self.embed(ids)
        return x + self.block(x)

    def __call__(self, ids):
        return self.embed.attend(self.encode(ids))


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
    variables = model.init(jax.random.key(0), IMAGE)
    arch = shrink(model.apply, variables, IMAGE)
    train = {"train": True, "mutable": ["batch_stats"]}
    small = morph.native(model, arch, IMAGE, **train)
    ours = small.apply(arch.take(variables), IMAGE, **train)
    theirs = morph.compact(model.apply, arch)(arch.take(variables), IMAGE, **train)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), ours, theirs)


def test_linen_methods_and_nesting():
    model = LinenTied()
    variables = model.init(jax.random.key(0), IDS)
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
    fresh = nested.init(jax.random.key(0), IDS)
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
    small = morph.native(model, arch, TOKENS)
    width = arch.shape("params/Dense_0/kernel")[-1]
    _, heads, head_width = arch.shape("params/MultiHeadDotProductAttention_0/query/kernel")
    assert (width, heads, head_width) == (8, 2, 3)
    built = LinenTransformer(width, heads, head_width)
    np.testing.assert_array_equal(small.apply(taken, TOKENS), built.apply(taken, TOKENS))


class LinenFixed(nn.Module):
    """Splits at a number in its code, in a layer of a name."""

    @nn.compact
    def __call__(self, x):
        return LinenSplit(name="split")(x)


class LinenSplit(nn.Module):
    """Splits at a number in its code."""

    @nn.compact
    def __call__(self, x):
        one, two = jnp.split(nn.Dense(11)(x), [5], -1)
        return nn.Dense(3)(nn.relu(one)) + nn.Dense(3)(nn.relu(two))


def test_linen_code_that_fixes_a_width_is_an_error_that_names_the_layer():
    model = LinenFixed()
    variables = model.init(jax.random.key(0), TOKENS)
    arch = shrink(model.apply, variables, TOKENS)
    with pytest.raises(NativeError, match=r"LinenFixed cannot.*split.*test_native\.py:\d+"):
        morph.native(model, arch, TOKENS)


def test_linen_parameter_of_a_fixed_shape_is_an_error():
    class Shifted(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(9)(x)
            return nn.Dense(3)(x + self.param("shift", nn.initializers.normal(), (1, 1, 9)))

    model = Shifted()
    arch = shrink(model.apply, model.init(jax.random.key(0), TOKENS), TOKENS)
    with pytest.raises(NativeError, match=r"shift.*\(1, 1, 6\)"):
        morph.native(model, arch, TOKENS)


def test_linen_needs_inputs():
    model = LinenTied()
    arch = shrink(model.apply, model.init(jax.random.key(0), IDS), IDS)
    with pytest.raises(NativeError, match="pass example inputs"):
        morph.native(model, arch)


def test_other_things_are_no_models():
    arch = shrink(LinenTied().apply, LinenTied().init(jax.random.key(0), IDS), IDS)
    with pytest.raises(TypeError, match=r"nnx\.Module or a flax\.linen\.Module"):
        morph.native(lambda x: x, arch, IDS)


def test_every_layer_of_flax_that_has_variables_has_a_row():
    def layers(package, base):
        kinds = {value for value in vars(package).values() if isinstance(value, type)}
        return {k for k in kinds if issubclass(k, base) and k is not package.RNNCellBase}

    nnx_layers = {k for k in layers(nnx, nnx.Module) if k.__module__.startswith("flax.nnx.nn.")}
    assert len(nnx_layers) > 20
    assert nnx_layers <= NNX_ROWS.keys()
    # The operations in eight bits have ranges of whole arrays, and no widths.
    linen_layers = {k for k in layers(nn, nn.Module) if "fp8" not in k.__module__} - {nn.Module}
    assert len(linen_layers) > 20
    assert {k for k in linen_layers if not LINEN_ROWS.keys() & set(k.__mro__)} == set()
