"""A small vision transformer (Dosovitskiy et al. 2020, "An image is worth 16x16 words").

Patches by a strided convolution, learned positions, pre-norm blocks, the mean over the tokens.
"""

from flax import linen as nn
from jaxtyping import Array, Float

from experiments.networks.layers import scaled


class Block(nn.Module):
    """Self-attention and a perceptron, both behind a layer norm and beside a shortcut.

    Attributes:
        heads: of the attention.
        head_width: channels of a head.
        hidden: units of the perceptron.
    """

    heads: int
    head_width: int
    hidden: int

    @nn.compact
    def __call__(self, x: Float[Array, "n t c"]) -> Float[Array, "n t c"]:
        """Returns the activations, [N, T, C]."""
        attention = nn.MultiHeadDotProductAttention(
            self.heads, qkv_features=self.heads * self.head_width, out_features=x.shape[-1]
        )
        x = x + attention(nn.LayerNorm()(x))
        y = nn.gelu(nn.Dense(self.hidden)(nn.LayerNorm()(x)))
        return x + nn.Dense(x.shape[-1])(y)


class ViT(nn.Module):
    """A vision transformer.

    Attributes:
        num_classes: number of logits.
        features: channels of the stream.
        blocks: how many.
        heads: of each attention.
        patch: height and width of a patch.
        width: multiplies the channels of the stream, of each head and of the perceptrons.
    """

    num_classes: int
    features: int = 64
    blocks: int = 4
    heads: int = 4
    patch: int = 4
    width: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n k"]:
        """Returns logits, [N, num_classes]; `train` changes nothing here."""
        del train
        features = scaled(self.features, self.width)
        size = (min(self.patch, *x.shape[1:3]),) * 2
        x = nn.Conv(features, size, strides=size, padding="VALID")(x)
        x = x.reshape(x.shape[0], -1, features)  # [N, T, C]
        positions = self.param("positions", nn.initializers.normal(0.02), (1, x.shape[1], features))
        x = x + positions
        head_width = scaled(self.features // self.heads, self.width)
        for _ in range(self.blocks):
            x = Block(self.heads, head_width, 4 * features)(x)
        return nn.Dense(self.num_classes)(nn.LayerNorm()(x).mean(axis=1))
