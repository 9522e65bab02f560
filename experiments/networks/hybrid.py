"""A network whose parts cost different things: separable, dense and attentive stages, a wide head.

What is dear depends on who counts. The convolutions have most of the FLOPs, the head most of the
parameters; an Edge TPU leaves everything from the attention on to its host; and a CPU is slow at
the depthwise stage. So structures that are learned for different costs differ.
"""

from flax import linen as nn
from jaxtyping import Array, Float

from experiments.networks.layers import BATCH_NORM_MOMENTUM, ConvNormRelu, scaled


class Separable(nn.Module):
    """A depthwise and a pointwise convolution, each with batch norm and relu.

    Attributes:
        features: output channels.
    """

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n h w d"]:
        """Returns the activations, [N, H, W, features]."""
        channels = x.shape[-1]
        x = nn.Conv(channels, (3, 3), feature_group_count=channels, use_bias=False)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=BATCH_NORM_MOMENTUM)(x)
        return ConvNormRelu(self.features, (1, 1))(nn.relu(x), train)


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n h w c"]:
        """Returns the activations, [N, H, W, C]."""
        y = ConvNormRelu(x.shape[-1])(x, train)
        y = nn.Conv(x.shape[-1], (3, 3), use_bias=False)(y)
        y = nn.BatchNorm(use_running_average=not train, momentum=BATCH_NORM_MOMENTUM)(y)
        return nn.relu(x + y)


class Attention(nn.Module):
    """A transformer block: self-attention and a perceptron, both beside a shortcut.

    Attributes:
        heads: of the attention.
        hidden: units of the perceptron.
    """

    heads: int
    hidden: int

    @nn.compact
    def __call__(self, x: Float[Array, "n t c"]) -> Float[Array, "n t c"]:
        """Returns the activations, [N, T, C]."""
        x = x + nn.MultiHeadDotProductAttention(self.heads)(nn.LayerNorm()(x))
        y = nn.relu(nn.Dense(self.hidden)(nn.LayerNorm()(x)))
        return x + nn.Dense(x.shape[-1])(y)


class Hybrid(nn.Module):
    """Separable convolutions, residual blocks at half the size, a transformer block, a wide head.

    Attributes:
        num_classes: number of logits.
        separable: channels and number of the separable convolutions, at full size.
        residual: channels and number of the residual blocks, at half the size.
        heads: of the attention.
        perceptron: hidden units of the transformer block.
        hidden: units of the head.
        width: multiplies all channels and units.
    """

    num_classes: int
    separable: tuple[int, int] = (64, 1)
    residual: tuple[int, int] = (128, 2)
    heads: int = 4
    perceptron: int = 512
    hidden: int = 512
    width: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n k"]:
        """Returns the logits, [N, num_classes]."""
        features, count = self.separable
        x = ConvNormRelu(scaled(features, self.width))(x, train)
        for _ in range(count):
            x = Separable(scaled(features, self.width))(x, train)
        features, count = self.residual
        x = ConvNormRelu(self.heads * scaled(features // self.heads, self.width), stride=2)(
            x, train
        )
        for _ in range(count):
            x = Residual()(x, train)
        n, h, w, c = x.shape
        x = Attention(self.heads, scaled(self.perceptron, self.width))(x.reshape(n, h * w, c))
        x = nn.avg_pool(x.reshape(n, h, w, c), (2, 2), strides=(2, 2), padding="SAME")
        x = nn.relu(nn.Dense(scaled(self.hidden, self.width))(x.reshape(n, -1)))
        return nn.Dense(self.num_classes)(x)
