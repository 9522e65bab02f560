"""LeNet-5 as Caffe has it, which Han et al. (2015) and most after them prune: 430,500 weights."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from experiments.networks.layers import scaled

SMALLEST = 16  # pixels: what two 5x5 windows and two halvings leave one of


class LeNet5(nn.Module):
    """Two convolutions with max pooling, then two dense layers.

    As in Caffe's, pooling is all that is nonlinear between the convolutions. Images of fewer than
    16 pixels a side are padded with zeros to that.

    Attributes:
        num_classes: number of logits.
        widths: channels of the two convolutions.
        hidden: units of the first dense layer.
        width: multiplies the convolutions' channels and the hidden units.
    """

    num_classes: int
    widths: tuple[int, int] = (20, 50)
    hidden: int = 500
    width: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n k"]:
        """Returns logits, [N, num_classes]; `train` changes nothing here."""
        del train
        lacking = [max(0, SMALLEST - size) for size in x.shape[1:3]]
        if any(lacking):
            x = jnp.pad(x, [(0, 0), *((0, pixels) for pixels in lacking), (0, 0)])
        for channels in self.widths:
            x = nn.Conv(scaled(channels, self.width), (5, 5), padding="VALID")(x)
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape((x.shape[0], -1))  # [N, H' * W' * channels]
        x = nn.relu(nn.Dense(scaled(self.hidden, self.width))(x))
        return nn.Dense(self.num_classes)(x)
