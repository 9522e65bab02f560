"""LeNet-300-100 and its relatives: flatten, then dense layers."""

from flax import linen as nn
from jaxtyping import Array, Float

from experiments.networks.layers import scaled


class MLP(nn.Module):
    """A multi-layer perceptron on flattened images.

    Attributes:
        num_classes: number of logits.
        widths: units of each hidden layer.
        width: multiplies every hidden layer's units.
    """

    num_classes: int
    widths: tuple[int, ...] = (300, 100)
    width: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n k"]:
        """Returns logits, [N, num_classes]; `train` changes nothing here."""
        del train
        x = x.reshape((x.shape[0], -1))  # [N, H * W * C]
        for units in self.widths:
            x = nn.relu(nn.Dense(scaled(units, self.width))(x))
        return nn.Dense(self.num_classes)(x)
