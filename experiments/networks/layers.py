"""What the seed networks have in common: the width multiplier and conv-BN-relu."""

from flax import linen as nn
from jaxtyping import Array, Float

# Of running statistics. Flax's default, 0.99, remembers 100 steps: too long while widths change.
BATCH_NORM_MOMENTUM = 0.9


def scaled(channels: int, width: float) -> int:
    """Returns `channels * width`, rounded, and at least 1."""
    return max(1, round(channels * width))


class ConvNormRelu(nn.Module):
    """A bias-free convolution, batch norm and relu.

    Attributes:
        features: output channels.
        kernel_size: height and width of the kernel.
        stride: stride of both spatial axes.
    """

    features: int
    kernel_size: tuple[int, int] = (3, 3)
    stride: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n p q d"]:
        """Returns the activations, [N, ceil(H / stride), ceil(W / stride), features]."""
        x = nn.Conv(self.features, self.kernel_size, strides=self.stride, use_bias=False)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=BATCH_NORM_MOMENTUM)(x)
        return nn.relu(x)
