"""A small GPT (Radford et al. 2019): a decoder that tells the next token.

Learned positions, pre-norm blocks, causal attention. Every linear layer is made by one function, so
that layers of another kind can stand there.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

# From the number of features and the name to a layer.
MakeLinear = Callable[[int, str], nn.Module]


def dense(features: int, name: str) -> nn.Module:
    """Flax's own layer."""
    return nn.Dense(features, name=name)


class GPTBlock(nn.Module):
    """Causal self-attention and a perceptron, both behind a layer norm and beside a shortcut.

    Attributes:
        heads: of the attention.
        linear: makes its linear layers: `qkv`, `out`, `up` and `down`.
    """

    heads: int
    linear: MakeLinear

    @nn.compact
    def __call__(self, x: Float[Array, "n t c"]) -> Float[Array, "n t c"]:
        """Returns the activations, [N, T, C]."""
        batch, length, width = x.shape
        qkv = self.linear(3 * width, "qkv")(nn.LayerNorm(use_bias=False)(x))
        q, k, v = (
            part.reshape(batch, length, self.heads, -1) for part in jnp.split(qkv, 3, axis=-1)
        )
        y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        x = x + self.linear(width, "out")(y.reshape(x.shape))
        y = nn.gelu(self.linear(4 * width, "up")(nn.LayerNorm(use_bias=False)(x)))
        return x + self.linear(width, "down")(y)


class GPT(nn.Module):
    """A decoder.

    Attributes:
        tokens: how many there are.
        width: channels of the stream.
        blocks: how many.
        heads: of each attention.
        context: the most tokens that it reads at once.
        linear: makes the linear layers of the blocks, and `head`.
    """

    tokens: int
    width: int = 128
    blocks: int = 5
    heads: int = 4
    context: int = 64
    linear: MakeLinear = dense

    @nn.compact
    def __call__(self, ids: Int[Array, "n t"]) -> Float[Array, "n t k"]:
        """Returns the logits of each next token, [N, T, tokens]."""
        init = nn.initializers.normal(0.02)
        positions = self.param("positions", init, (self.context, self.width))
        x = nn.Embed(self.tokens, self.width, embedding_init=init)(ids)
        x = x + positions[None, : ids.shape[1]]
        for k in range(self.blocks):
            x = GPTBlock(self.heads, self.linear, name=f"block_{k}")(x)
        return self.linear(self.tokens, "head")(nn.LayerNorm(use_bias=False)(x))
