"""Towers side by side, each dear in another way: what a cost takes away shows what it prices.

The convolutions have most of the FLOPs, the perceptron most of the parameters, large depthwise
kernels are slow on a CPU, and an exact gelu an Edge TPU leaves to its host: what it takes in has to
cross the link between the two.
"""

import functools

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from experiments.networks.layers import BATCH_NORM_MOMENTUM, ConvNormRelu, scaled


class Depthwise(nn.Module):
    """A large depthwise convolution and a pointwise one, each with batch norm and relu.

    Attributes:
        features: output channels.
        kernel_size: height and width of the depthwise kernel.
    """

    features: int
    kernel_size: tuple[int, int] = (5, 5)

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n h w d"]:
        """Returns the activations, [N, H, W, features]."""
        channels = x.shape[-1]
        x = nn.Conv(channels, self.kernel_size, feature_group_count=channels, use_bias=False)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=BATCH_NORM_MOMENTUM)(x)
        return ConvNormRelu(self.features, (1, 1))(nn.relu(x), train)


class ConvNormGelu(nn.Module):
    """A convolution, batch norm and an exact gelu, which an Edge TPU does not know.

    Attributes:
        features: output channels.
        kernel_size: height and width of the kernel.
    """

    features: int
    kernel_size: tuple[int, int] = (3, 3)

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n h w d"]:
        """Returns the activations, [N, H, W, features]."""
        x = nn.Conv(self.features, self.kernel_size, use_bias=False)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=BATCH_NORM_MOMENTUM)(x)
        return nn.gelu(x, approximate=False)


class Towers(nn.Module):
    """Four towers beside each other, all from the image; their ends are concatenated.

    Attributes:
        num_classes: number of logits.
        relu: channels of the 3x3 convolutions of the first tower.
        perceptron: units of the dense layers.
        depthwise: channels of a 3x3 convolution, and of the depthwise stages behind it; all at half
            the size.
        gelu: channels of a 3x3 convolution, and of the 1x1 convolutions behind it.
        width: multiplies all channels and units.
    """

    num_classes: int
    relu: tuple[int, ...] = (48, 48, 48, 48, 48)
    perceptron: tuple[int, ...] = (1024, 1024)
    depthwise: tuple[int, ...] = (64, 96, 96, 96)
    gelu: tuple[int, ...] = (512, 16)
    width: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n k"]:
        """Returns the logits, [N, num_classes]."""
        size = functools.partial(scaled, width=self.width)
        ends = []
        y = x
        for features in self.relu:
            y = ConvNormRelu(size(features))(y, train)
        ends.append(y.mean((1, 2)))
        y = x.reshape(x.shape[0], -1)
        for features in self.perceptron:
            y = nn.relu(nn.Dense(size(features))(y))
        ends.append(y)
        y = ConvNormRelu(size(self.depthwise[0]), stride=2)(x, train)
        for features in self.depthwise[1:]:
            y = Depthwise(size(features))(y, train)
        ends.append(y.mean((1, 2)))
        y = x
        for i, features in enumerate(self.gelu):
            y = ConvNormGelu(size(features), (1, 1) if i else (3, 3))(y, train)
        ends.append(y.mean((1, 2)))  # the last: what follows an exact gelu runs on the host
        return nn.Dense(self.num_classes)(jnp.concatenate(ends, axis=-1))
