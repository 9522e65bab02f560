"""Inception V2 (Ioffe & Szegedy 2015, "Batch normalization") with the widths of TF-slim.

At 224x224x3 with 1001 classes it has 11,168,408 kernel weights and 3,869,716,480 FLOPs in its
convolutions and dense layer (2 per multiply-add, padding counted). Like slim's, convolutions have
no bias; unlike slim's, batch norms have a scale, which gives the gamma penalty something to shrink.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from experiments.networks.layers import ConvNormRelu, scaled

# A tower is a chain of these: (output channels, kernel side).
_Tower = tuple[tuple[int, int], ...]


def _same_pool(pool: Callable[..., Array], x: Array, stride: int = 1) -> Array:
    """Returns `x` pooled 3x3 with SAME padding."""
    return pool(x, (3, 3), strides=(stride, stride), padding="SAME")


class Mixed(nn.Module):
    """Towers of convolutions and one pooling tower, concatenated.

    Attributes:
        towers: for each convolutional tower, its (output channels, kernel side) in order.
        pool: `nn.avg_pool` or `nn.max_pool`.
        pool_features: channels of the 1x1 convolution after the pool; None for no convolution.
        stride: of each tower's last convolution and of the pool.
        width: multiplies every convolution's channels.
    """

    towers: Sequence[_Tower]
    pool: Callable[..., Array]
    pool_features: int | None = None
    stride: int = 1
    width: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n p q d"]:
        """Returns the towers' activations concatenated on the last axis."""
        outputs = []
        for tower in self.towers:
            y = x
            for position, (features, side) in enumerate(tower):
                stride = self.stride if position == len(tower) - 1 else 1
                y = ConvNormRelu(scaled(features, self.width), (side, side), stride)(y, train)
            outputs.append(y)
        y = _same_pool(self.pool, x, self.stride)
        if self.pool_features is not None:
            y = ConvNormRelu(scaled(self.pool_features, self.width), (1, 1))(y, train)
        return jnp.concatenate([*outputs, y], axis=-1)


def _mixed(
    one: int,
    three: tuple[int, int],
    double: tuple[int, int],
    pool_features: int,
    *,
    width: float,
    name: str,
    pool: Callable[..., Array] = nn.avg_pool,
) -> Mixed:
    """Returns a stride-1 block: 1x1; 1x1-3x3; 1x1-3x3-3x3; pool-1x1."""
    towers = (
        ((one, 1),),
        ((three[0], 1), (three[1], 3)),
        ((double[0], 1), (double[1], 3), (double[1], 3)),
    )
    return Mixed(towers, pool, pool_features, width=width, name=name)


def _reduction(
    three: tuple[int, int], double: tuple[int, int], *, width: float, name: str
) -> Mixed:
    """Returns a stride-2 block: 1x1-3x3; 1x1-3x3-3x3; max pool."""
    towers = (
        ((three[0], 1), (three[1], 3)),
        ((double[0], 1), (double[1], 3), (double[1], 3)),
    )
    return Mixed(towers, nn.max_pool, stride=2, width=width, name=name)


class InceptionV2(nn.Module):
    """Inception V2 from the separable 7x7 stem to the logits.

    Attributes:
        num_classes: number of logits; slim's ImageNet models have 1001.
        dropout_rate: share of the pooled features dropped in training (rng stream `dropout`).
        width: multiplies every convolution's channels.
    """

    num_classes: int
    dropout_rate: float = 0.2
    width: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool = False) -> Float[Array, "n k"]:
        """Returns logits, [N, num_classes]."""
        w = self.width
        stem, in_features = scaled(64, w), x.shape[-1]
        multiplier = max(1, min(8, stem // in_features))  # slim's depth multiplier
        x = nn.Conv(
            in_features * multiplier,
            (7, 7),
            strides=2,
            feature_group_count=in_features,
            use_bias=False,
            name="Conv2d_1a_7x7_depthwise",
        )(x)
        x = ConvNormRelu(stem, (1, 1), name="Conv2d_1a_7x7")(x, train)  # [N, 112, 112, 64]
        x = _same_pool(nn.max_pool, x, stride=2)
        x = ConvNormRelu(scaled(64, w), (1, 1), name="Conv2d_2b_1x1")(x, train)
        x = ConvNormRelu(scaled(192, w), name="Conv2d_2c_3x3")(x, train)  # [N, 56, 56, 192]
        x = _same_pool(nn.max_pool, x, stride=2)
        x = _mixed(64, (64, 64), (64, 96), 32, width=w, name="Mixed_3b")(x, train)
        x = _mixed(64, (64, 96), (64, 96), 64, width=w, name="Mixed_3c")(x, train)
        x = _reduction((128, 160), (64, 96), width=w, name="Mixed_4a")(x, train)
        x = _mixed(224, (64, 96), (96, 128), 128, width=w, name="Mixed_4b")(x, train)
        x = _mixed(192, (96, 128), (96, 128), 128, width=w, name="Mixed_4c")(x, train)
        x = _mixed(160, (128, 160), (128, 160), 96, width=w, name="Mixed_4d")(x, train)
        x = _mixed(96, (128, 192), (160, 192), 96, width=w, name="Mixed_4e")(x, train)
        x = _reduction((128, 192), (192, 256), width=w, name="Mixed_5a")(x, train)
        x = _mixed(352, (192, 320), (160, 224), 128, width=w, name="Mixed_5b")(x, train)
        x = _mixed(352, (192, 320), (192, 224), 128, width=w, name="Mixed_5c", pool=nn.max_pool)(
            x, train
        )
        x = x.mean(axis=(1, 2))  # [N, 1024]
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        return nn.Dense(self.num_classes, name="Logits")(x)
