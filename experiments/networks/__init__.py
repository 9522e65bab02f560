"""Seed networks by name: what `--seed_network` accepts.

Linen networks are called as `module.apply(variables, x, train=False)`, the NNX one as `model(x)`;
all take images [N, H, W, C] and return logits [N, num_classes].
"""

from collections.abc import Callable

from flax import linen as nn
from flax import nnx

from experiments.networks.cnn import CNN
from experiments.networks.hybrid import Hybrid
from experiments.networks.inception import Inception
from experiments.networks.inception_v2 import InceptionV2
from experiments.networks.layers import scaled
from experiments.networks.lenet import LeNet5
from experiments.networks.mlp import MLP
from experiments.networks.nnx_cnn import NNXCNN
from experiments.networks.resnet import ResNet
from experiments.networks.towers import Towers
from experiments.networks.vit import ViT
from regularizers.errors import InputError
from regularizers.messages import near

SeedNetwork = nn.Module | Callable[[nnx.Rngs], nnx.Module]
Builder = Callable[[tuple[int, int, int], int, float], SeedNetwork]


def _linen(module: type[nn.Module], **attributes: int) -> Builder:
    """Returns a builder of a Linen module, which learns the input's shape when it is called."""

    def build_linen(input_shape: tuple[int, int, int], num_classes: int, width: float) -> nn.Module:
        del input_shape
        return module(num_classes=num_classes, width=width, **attributes)

    return build_linen


def _nnx_cnn(
    input_shape: tuple[int, int, int], num_classes: int, width: float
) -> Callable[[nnx.Rngs], nnx.Module]:
    """Returns a function from rngs to the NNX network."""
    widths = tuple(scaled(channels, width) for channels in (16, 32, 64))
    return lambda rngs: NNXCNN(input_shape, num_classes, widths, rngs=rngs)


SEED_NETWORKS: dict[str, Builder] = {
    "mlp": _linen(MLP),
    "lenet5": _linen(LeNet5),
    "cnn": _linen(CNN),
    "nnx_cnn": _nnx_cnn,
    "resnet8": _linen(ResNet, depth=8),
    "resnet20": _linen(ResNet, depth=20),
    "hybrid": _linen(Hybrid),
    "towers": _linen(Towers),
    "inception": _linen(Inception),
    "inception_v2": _linen(InceptionV2),
    "vit": _linen(ViT),
}


def build(
    name: str, *, input_shape: tuple[int, int, int], num_classes: int, width: float = 1.0
) -> SeedNetwork:
    """Builds a seed network.

    Args:
        name: a key of `SEED_NETWORKS`.
        input_shape: height, width and channels of one image.
        num_classes: number of logits.
        width: multiplies the channels of every hidden layer (rounded, at least 1).

    Returns:
        A Linen module, or, for NNX networks, a function from `nnx.Rngs` to the model.

    Raises:
        ValueError: if the name is unknown, or a size is not positive.

    Example:
        >>> build("resnet8", input_shape=(32, 32, 3), num_classes=10).depth
        8
    """
    if name not in SEED_NETWORKS:
        raise InputError(f"Unknown seed network {name!r}{near(name, SEED_NETWORKS)}")
    if len(input_shape) != 3 or min(*input_shape, num_classes) < 1 or width <= 0:
        raise InputError(
            f"{name} needs an input_shape of three positive sizes (height, width, channels), at "
            f"least one class and a positive width; got input_shape={tuple(input_shape)}, "
            f"num_classes={num_classes}, width={width}."
        )
    return SEED_NETWORKS[name](input_shape, num_classes, width)
