"""A plain convolutional network in NNX: strided conv-BN-relu stages, flatten, dropout, dense."""

import math

from flax import nnx
from jaxtyping import Array, Float

from experiments.networks.layers import BATCH_NORM_MOMENTUM


class NNXCNN(nnx.Module):
    """Conv-BN-relu stages, each halving the map, then flatten-dropout-dense.

    `model.train()` and `model.eval()` switch batch norm and dropout, as usual in NNX.

    Args:
        input_shape: height, width and channels of one image.
        num_classes: number of logits.
        widths: channels of each convolution.
        rngs: streams `params` and `dropout` (or a default one).
        dropout_rate: share of the flattened features dropped in training.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        widths: tuple[int, ...] = (16, 32, 64),
        *,
        rngs: nnx.Rngs,
        dropout_rate: float = 0.25,
    ):
        height, width, in_features = input_shape
        self.convs: nnx.List[nnx.Conv] = nnx.List()
        self.norms: nnx.List[nnx.BatchNorm] = nnx.List()
        for features in widths:
            conv = nnx.Conv(in_features, features, (3, 3), strides=2, use_bias=False, rngs=rngs)
            self.convs.append(conv)
            self.norms.append(nnx.BatchNorm(features, momentum=BATCH_NORM_MOMENTUM, rngs=rngs))
            height, width, in_features = math.ceil(height / 2), math.ceil(width / 2), features
        self.dropout = nnx.Dropout(dropout_rate, rngs=rngs)
        self.dense = nnx.Linear(height * width * in_features, num_classes, rngs=rngs)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n k"]:
        """Returns logits, [N, num_classes]."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = nnx.relu(norm(conv(x)))
        x = x.reshape((x.shape[0], -1))
        return self.dense(self.dropout(x))
