"""A small Inception-style network: three blocks of four concatenated towers."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from experiments.networks.layers import ConvNormRelu, scaled


class Towers(nn.Module):
    """Four towers side by side: 1x1; 1x1-3x3; 1x1-3x3-3x3; pool-1x1.

    Attributes:
        features: output channels of each tower; the block has four times as many.
        bottleneck: channels of the 1x1 convolution that opens the two 3x3 towers.
    """

    features: int
    bottleneck: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n h w d"]:
        """Returns the towers' activations concatenated, [N, H, W, 4 * features]."""
        one = ConvNormRelu(self.features, (1, 1))(x, train)
        three = ConvNormRelu(self.bottleneck, (1, 1))(x, train)
        three = ConvNormRelu(self.features)(three, train)
        five = ConvNormRelu(self.bottleneck, (1, 1))(x, train)
        five = ConvNormRelu(self.features)(five, train)
        five = ConvNormRelu(self.features)(five, train)
        pool = nn.avg_pool(x, (3, 3), padding="SAME")
        pool = ConvNormRelu(self.features, (1, 1))(pool, train)
        return jnp.concatenate([one, three, five, pool], axis=-1)


class Inception(nn.Module):
    """A 3x3 stem, three `Towers` with max pooling between them, global mean, dense.

    Attributes:
        num_classes: number of logits.
        widths: channels of each tower in the three blocks; the stem has the first's.
        width: multiplies every convolution's channels.
    """

    num_classes: int
    widths: tuple[int, int, int] = (16, 24, 32)
    width: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n k"]:
        """Returns logits, [N, num_classes]."""
        x = ConvNormRelu(scaled(self.widths[0], self.width))(x, train)
        for block, features in enumerate(self.widths):
            if block > 0:
                x = nn.max_pool(x, (2, 2), strides=(2, 2), padding="SAME")
            bottleneck = scaled(features // 2, self.width)
            x = Towers(scaled(features, self.width), bottleneck)(x, train)
        x = x.mean(axis=(1, 2))  # [N, C]
        return nn.Dense(self.num_classes)(x)
