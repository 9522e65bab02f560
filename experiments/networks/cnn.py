"""A plain convolutional network in Linen: three stages, flatten, two dense layers."""

from flax import linen as nn
from jaxtyping import Array, Float

from experiments.networks.layers import ConvNormRelu, scaled


class CNN(nn.Module):
    """Three conv-BN-relu stages, then flatten-dense-dropout-dense.

    The map is halved once by pooling and once by a stride. The first dense layer reads the
    flattened map, so its input axis is the product of height, width and channels.

    Attributes:
        num_classes: number of logits.
        widths: channels of the three convolutions.
        hidden: units of the first dense layer.
        dropout_rate: share of hidden units dropped in training (rng stream `dropout`).
        width: multiplies every convolution's channels and the hidden units.
    """

    num_classes: int
    widths: tuple[int, int, int] = (16, 32, 64)
    hidden: int = 128
    dropout_rate: float = 0.25
    width: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n k"]:
        """Returns logits, [N, num_classes]."""
        first, second, third = (scaled(channels, self.width) for channels in self.widths)
        x = ConvNormRelu(first)(x, train)
        x = nn.max_pool(x, (2, 2), strides=(2, 2), padding="SAME")
        x = ConvNormRelu(second, stride=2)(x, train)
        x = ConvNormRelu(third)(x, train)
        x = x.reshape((x.shape[0], -1))  # [N, ceil(H / 4) * ceil(W / 4) * third]
        x = nn.relu(nn.Dense(scaled(self.hidden, self.width))(x))
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        return nn.Dense(self.num_classes)(x)
