"""Models that are resized in their own code."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import morph
import regularizers as reg

IMAGE = jax.random.normal(jax.random.key(1), (2, 4, 4, 3))
TOKENS = jax.random.normal(jax.random.key(2), (2, 5, 7))
IDS = jnp.asarray([[1, 4, 2], [0, 12, 3]])


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


def two_thirds(graph):
    """Every third channel goes, from the second on; a group of 3 keeps 2, of 4 keeps 3."""
    return {name: np.arange(width) % 3 != 1 for name, width in graph.widths.items()}


def shrink(fn, variables, *inputs, **static):
    graph = reg.trace_channels(fn, variables, *inputs, **static)
    return morph.shrink(graph, two_thirds(graph), inexact=True)


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
