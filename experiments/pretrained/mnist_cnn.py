"""A small CNN that someone trained on MNIST: 390,410 parameters, 99.06 % on the test set."""

from __future__ import annotations

import jax
from flax import linen as nn
from jaxtyping import Array, Float

from experiments.pretrained import convert, weights
from experiments.pretrained.pth import read_pth
from morph.network import Variables

PACKAGE = weights.Package(
    name="digit-recognizer-py",
    version="0.1.0",
    folder="digit_recognizer/models",
    files={
        "handwriting_model.pth": "325e0773529babe8ebb6adf35a82c64e57c5f3518c2adb975865355c74bc4786",
    },
)
WIDTHS = (32, 64, 128)
HIDDEN = 256


class MNISTCNN(nn.Module):
    """Three conv-relu-pool stages, flatten, two dense layers.

    Pictures are standardised with MNIST's mean and deviation, .1307 and .3081, as
    `experiments.datasets.load("mnist")` does. A map of odd size loses its last row and column in a
    pool: 28, 14, 7, 3.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "n 28 28 1"], train: bool = False) -> Float[Array, "n 10"]:
        """Returns logits, [N, 10]; `train` changes nothing here."""
        del train
        for stage, features in enumerate(WIDTHS):
            x = nn.relu(nn.Conv(features, (3, 3), name=f"conv_{stage}")(x))
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape((x.shape[0], -1))  # [N, 3 * 3 * 128]
        x = nn.relu(nn.Dense(HIDDEN, name="hidden")(x))
        return nn.Dense(10, name="logits")(x)


_ROWS = {
    **convert.conv("conv_layers.0", "conv_0"),
    **convert.conv("conv_layers.3", "conv_1"),
    **convert.conv("conv_layers.6", "conv_2"),
    **convert.dense("fc_layers.0", "hidden", layout=convert.after_flatten(WIDTHS[-1], 3, 3)),
    **convert.dense("fc_layers.2", "logits"),
}


def load(data_dir: str | None = None) -> tuple[MNISTCNN, Variables]:
    """Returns the network and its trained variables.

    Args:
        data_dir: folder to look in first, see `weights.find`.

    Raises:
        WeightsNotFoundError: if the file is nowhere; the message says how to install it.
        WeightsError: if it is not the file.

    Example:
        >>> module, variables = load()
        >>> module.apply(variables, jax.numpy.zeros((5, 28, 28, 1))).shape
        (5, 10)
    """
    (path,) = weights.find(PACKAGE, data_dir).values()
    module, example = MNISTCNN(), jax.ShapeDtypeStruct((1, 28, 28, 1), "float32")
    return module, convert.convert(read_pth(path), _ROWS, module, example)


def trained() -> Variables:
    """The trained variables: what `--start=experiments.pretrained.mnist_cnn:trained` names.

    Raises:
        WeightsNotFoundError, WeightsError: as `load`.
    """
    return load()[1]
