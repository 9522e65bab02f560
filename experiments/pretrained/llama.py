"""The llama family (Touvron et al. 2023): decoders with rotary positions and grouped heads.

A config says which one. Rotary pairs lie beside each other, as in GGUF files and the paper, not
half a head apart, as in Hugging Face's files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

Cache: TypeAlias = tuple[tuple[Array, Array], ...]  # by block: keys and values, [N, S, K, D]


@dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """The sizes of a network.

    Attributes:
        vocabulary: tokens.
        width: channels of the stream.
        blocks: how many, each of an attention and a perceptron.
        heads: of queries, a multiple of `kv_heads`.
        kv_heads: of keys and values.
        head_width: channels of a head, even.
        hidden: of the perceptrons.
        rope_base: of the rotary positions.
        epsilon: of the norms.
        tied: the embedding is the output layer, too.
    """

    vocabulary: int
    width: int
    blocks: int
    heads: int
    kv_heads: int
    head_width: int
    hidden: int
    rope_base: float = 10_000.0
    epsilon: float = 1e-5
    tied: bool = False


LLAMA3_8B = LlamaConfig(
    vocabulary=128_256,
    width=4096,
    blocks=32,
    heads=32,
    kv_heads=8,
    head_width=128,
    hidden=14_336,
    rope_base=500_000.0,
)
LLAMA3_70B = LlamaConfig(
    vocabulary=128_256,
    width=8192,
    blocks=80,
    heads=64,
    kv_heads=8,
    head_width=128,
    hidden=28_672,
    rope_base=500_000.0,
)


def rotated(
    x: Float[Array, "n t h d"], positions: Int[Array, " t"], base: float
) -> Float[Array, "n t h d"]:
    """Heads turned by their positions, neighbouring channels as a pair (Su et al. 2021, eq. 34)."""
    pairs = x.shape[-1] // 2
    frequencies = (base ** (-np.arange(pairs) / pairs)).astype(np.float32)
    angles = positions[:, None].astype(jnp.float32) * frequencies[None]  # [T, D/2]
    cos, sin = (f(angles)[None, :, None].astype(x.dtype) for f in (jnp.cos, jnp.sin))
    even, odd = jnp.moveaxis(x.reshape(*x.shape[:-1], pairs, 2), -1, 0)
    turned = jnp.stack([even * cos - odd * sin, odd * cos + even * sin], axis=-1)
    return turned.reshape(x.shape)


class Attention(nn.Module):
    """Causal attention; some query heads share a head of keys and values.

    Attributes:
        config: of the network.
    """

    config: LlamaConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "n t c"], start: Any, cache: tuple[Array, Array] | None
    ) -> tuple[Float[Array, "n t c"], tuple[Array, Array]]:
        """Returns the mixed values, [N, T, C], and the keys and values of all positions so far."""
        config, (batch, length, _) = self.config, x.shape
        positions = jnp.arange(length) + start  # [T]

        def heads(name: str, count: int) -> Float[Array, "n t h d"]:
            y = nn.Dense(count * config.head_width, use_bias=False, name=name)(x)
            return y.reshape(batch, length, count, config.head_width)

        query = rotated(heads("query", config.heads), positions, config.rope_base)
        key = rotated(heads("key", config.kv_heads), positions, config.rope_base)
        value = heads("value", config.kv_heads)
        if cache is not None:
            key, value = (
                jax.lax.dynamic_update_slice_in_dim(old, new, start, axis=1)
                for old, new in zip(cache, (key, value), strict=True)
            )
        query = query.reshape(batch, length, config.kv_heads, -1, config.head_width)
        scores = jnp.einsum("ntkgd,nskd->nkgts", query, key) / np.sqrt(config.head_width)
        seen = jnp.arange(key.shape[1])[None] <= positions[:, None]  # [T, S]
        scores = jnp.where(seen[None, None, None], scores, jnp.finfo(scores.dtype).min)
        shares = nn.softmax(scores.astype(jnp.float32)).astype(x.dtype)
        mixed = jnp.einsum("nkgts,nskd->ntkgd", shares, value).reshape(batch, length, -1)
        return nn.Dense(config.width, use_bias=False, name="output")(mixed), (key, value)


class Perceptron(nn.Module):
    """Hidden channels, each with a gate (Shazeer 2020, "GLU variants improve transformer").

    Attributes:
        config: of the network.
    """

    config: LlamaConfig

    @nn.compact
    def __call__(self, x: Float[Array, "n t c"]) -> Float[Array, "n t c"]:
        """Returns the activations, [N, T, C]."""
        gate = nn.silu(nn.Dense(self.config.hidden, use_bias=False, name="gate")(x))
        y = gate * nn.Dense(self.config.hidden, use_bias=False, name="up")(x)
        return nn.Dense(self.config.width, use_bias=False, name="down")(y)


class Llama(nn.Module):
    """A decoder that tells the next token.

    Attributes:
        config: its sizes.
    """

    config: LlamaConfig

    def setup(self) -> None:
        """Makes the layers."""
        config = self.config
        self.words = nn.Embed(config.vocabulary, config.width)
        self.attention = [Attention(config) for _ in range(config.blocks)]
        self.attention_norm = [nn.RMSNorm(config.epsilon) for _ in range(config.blocks)]
        self.perceptron = [Perceptron(config) for _ in range(config.blocks)]
        self.perceptron_norm = [nn.RMSNorm(config.epsilon) for _ in range(config.blocks)]
        self.norm = nn.RMSNorm(config.epsilon)
        if not config.tied:
            self.head = nn.Dense(config.vocabulary, use_bias=False)

    def __call__(self, tokens: Int[Array, "n t"], train: bool = False) -> Float[Array, "n t v"]:
        """Returns the logits of each next token, [N, T, vocabulary]; it is the same in training."""
        x, _ = self.stream(tokens, 0, None)
        return self.logits(x)

    def stream(
        self, tokens: Int[Array, "n t"], start: Any, cache: Cache | None
    ) -> tuple[Float[Array, "n t c"], Cache]:
        """Returns the normed stream behind the last block, [N, T, C], and the cache.

        Args:
            tokens: from position `start` on.
            start: how many tokens came before, which the cache knows.
            cache: of room for all tokens; None if these are all.
        """
        x, new = self.words(tokens), []
        for k in range(self.config.blocks):
            old = None if cache is None else cache[k]
            y, own = self.attention[k](self.attention_norm[k](x), start, old)
            x = x + y
            x = x + self.perceptron[k](self.perceptron_norm[k](x))
            new.append(own)
        return self.norm(x), tuple(new)

    def logits(self, x: Float[Array, "n t c"]) -> Float[Array, "n t v"]:
        """Returns the logits behind a stream."""
        return self.words.attend(x) if self.config.tied else self.head(x)

    def generate(self, tokens: Int[Array, "n t"], steps: int) -> Int[Array, "n t"]:
        """Returns the most likely continuation, token by token, [N, steps].

        Keys and values are kept, so that a step reads one token. It is a function of the
        variables as the network is: `morph.compact` makes that of a small one.
        """
        config, (batch, length) = self.config, tokens.shape
        shape = (batch, length + steps, config.kv_heads, config.head_width)
        # Arrays of each block's own: blocks may have different widths.
        room = tuple((jnp.zeros(shape), jnp.zeros(shape)) for _ in range(config.blocks))
        x, cache = self.stream(tokens, 0, room)

        def next_of(x: Float[Array, "n t c"]) -> Int[Array, " n"]:
            return jnp.argmax(self.logits(x[:, -1:])[:, 0], axis=-1)

        def step(carry: tuple[Any, Cache], position: Any) -> tuple[tuple[Any, Cache], Any]:
            token, cache = carry
            x, cache = self.stream(token[:, None], position, cache)
            return (next_of(x), cache), token

        _, found = jax.lax.scan(step, (next_of(x), cache), length + jnp.arange(steps))
        return found.T


def next_token_loss(
    apply: Callable[..., Any],
) -> Callable[[Any, Int[Array, "n t"]], Float[Array, ""]]:
    """The mean cross-entropy of every token but the first, in nats; of variables and tokens."""

    def loss(variables: Any, tokens: Int[Array, "n t"]) -> Float[Array, ""]:
        logits = apply(variables, tokens)[:, :-1]
        own = jnp.take_along_axis(logits, tokens[:, 1:, None], axis=-1)[..., 0]
        return (jax.nn.logsumexp(logits, axis=-1) - own).mean()

    return loss
