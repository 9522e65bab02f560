"""ResNet v1 for small images (He et al. 2015, "Deep residual learning", section 4.2)."""

from flax import linen as nn
from jaxtyping import Array, Float

from experiments.networks.layers import BATCH_NORM_MOMENTUM, ConvNormRelu, scaled
from regularizers.errors import InputError


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut; relu after the sum.

    The shortcut is the identity where shapes agree, else a 1x1 convolution and batch norm (the
    paper's option B).

    Attributes:
        features: output channels.
        stride: stride of the first convolution and of the shortcut.
    """

    features: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n p q d"]:
        """Returns the activations, [N, ceil(H / stride), ceil(W / stride), features]."""
        y = ConvNormRelu(self.features, stride=self.stride)(x, train)
        y = nn.Conv(self.features, (3, 3), use_bias=False)(y)
        y = nn.BatchNorm(use_running_average=not train, momentum=BATCH_NORM_MOMENTUM)(y)
        if x.shape != y.shape:
            x = nn.Conv(self.features, (1, 1), strides=self.stride, use_bias=False)(x)
            x = nn.BatchNorm(use_running_average=not train, momentum=BATCH_NORM_MOMENTUM)(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """A ResNet of depth 6n + 2: three stages of n blocks, global mean, dense.

    Attributes:
        num_classes: number of logits.
        depth: weighted layers on the longest path; 6n + 2.
        widths: channels of the three stages; all but the first start with stride 2.
        width: multiplies every stage's channels.
    """

    num_classes: int
    depth: int = 20
    widths: tuple[int, int, int] = (16, 32, 64)
    width: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n k"]:
        """Returns logits, [N, num_classes].

        Raises:
            ValueError: if `depth` is not 6n + 2 for a positive n.
        """
        blocks, rest = divmod(self.depth - 2, 6)
        if rest or blocks < 1:
            raise InputError(f"ResNet depth must be 6n + 2 (8, 14, 20, ...); got {self.depth}.")
        x = ConvNormRelu(scaled(self.widths[0], self.width))(x, train)
        for stage, channels in enumerate(self.widths):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                x = Block(scaled(channels, self.width), stride)(x, train)
        x = x.mean(axis=(1, 2))  # [N, C]
        return nn.Dense(self.num_classes)(x)
