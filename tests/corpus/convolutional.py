"""Convolutional networks: how channels are added, concatenated, gated, split and normalized."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from corpus.case import BATCH_NORM, Case, linen, normal
from jax import lax

IMAGES = (2, 4, 4, 3)


def conv1(width, **options):
    return nn.Conv(width, (1, 1), **options)


def conv3(width, **options):
    return nn.Conv(width, (3, 3), **options)


def pooled(x):
    """The mean over space: [N, H, W, C] -> [N, C]."""
    return x.mean((1, 2))


class ResNetV1(nn.Module):
    """Blocks that are added after their norm; the second one is strided and projected."""

    @nn.compact
    def __call__(self, x, train=False):
        def norm(x):
            return nn.BatchNorm(not train)(x)

        x = nn.relu(norm(conv3(7, use_bias=False)(x)))
        y = norm(conv3(7, use_bias=False)(nn.relu(norm(conv3(5, use_bias=False)(x)))))
        x = nn.relu(x + y)
        y = norm(conv3(11, strides=2)(x))
        x = nn.relu(y + norm(conv1(11, strides=2)(x)))
        return nn.Dense(3)(pooled(x))


class ResNetV2(nn.Module):
    """Pre-activation: the residual stream itself is never normalized."""

    @nn.compact
    def __call__(self, x, train=False):
        def act(x):
            return nn.relu(nn.BatchNorm(not train)(x))

        x = conv3(7)(x)
        for width in (5, 11):
            x += conv3(7)(act(conv3(width)(act(x))))
        return nn.Dense(3)(pooled(act(x)))


class DenseNet(nn.Module):
    """Every layer sees the concatenation of all before it; a transition halves it."""

    @nn.compact
    def __call__(self, x, train=False):
        def act(x):
            return nn.relu(nn.BatchNorm(not train)(x))

        x = conv3(7)(x)
        for growth in (5, 3):
            x = jnp.concatenate([x, conv3(growth)(act(x))], -1)
        x = nn.avg_pool(conv1(11)(act(x)), (2, 2), (2, 2))
        x = jnp.concatenate([x, conv3(5)(act(x))], -1)
        return nn.Dense(3)(pooled(act(x)))


class Inception(nn.Module):
    """Four towers side by side, one of them pooled, one factorized into 1x3 and 3x1."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(conv3(5)(x))
        a = conv1(7)(x)
        b = conv3(4)(nn.relu(conv1(3)(x)))
        c = conv1(2)(nn.max_pool(x, (3, 3), padding="SAME"))
        d = nn.Conv(6, (3, 1))(nn.Conv(5, (1, 3))(x))
        x = nn.relu(jnp.concatenate([a, b, c, d], -1))
        return nn.Dense(3)(pooled(conv1(11)(x)))


class SqueezeNet(nn.Module):
    """Fire modules: squeeze, two expansions side by side; the head is a convolution."""

    @nn.compact
    def __call__(self, x):
        for squeeze, small, large in ((3, 7, 5), (4, 5, 6)):
            x = nn.relu(conv1(squeeze)(x))
            x = jnp.concatenate([nn.relu(conv1(small)(x)), nn.relu(conv3(large)(x))], -1)
        return pooled(conv1(3)(x))


class SqueezeExcite(nn.Module):
    """A sigmoid of the pooled channels scales every channel."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(conv3(11)(x))
        s = nn.relu(conv1(5)(x.mean((1, 2), keepdims=True)))
        return nn.Dense(3)(pooled(x * nn.sigmoid(conv1(11)(s))))


class SelectiveKernel(nn.Module):
    """A softmax over branches, of every channel for itself."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(conv3(5)(x))
        branches = jnp.stack(
            [nn.relu(conv3(7, kernel_dilation=rate)(x)) for rate in (1, 2)], 1
        )  # [N, K, H, W, C]
        z = nn.relu(nn.Dense(5)(pooled(branches.sum(1))))
        weights = nn.softmax(jnp.stack([nn.Dense(7)(z) for _ in range(2)], 1), 1)
        x = (branches * weights[:, :, None, None, :]).sum(1)
        return nn.Dense(3)(pooled(x))


class ResNeSt(nn.Module):
    """Split attention: cardinality 2, radix 3, a softmax over the radix."""

    @nn.compact
    def __call__(self, x):
        cardinality, radix, width = 2, 3, 5
        x = nn.relu(conv1(14)(x))
        x = nn.relu(conv3(cardinality * radix * width, feature_group_count=2)(x))
        splits = x.reshape(*x.shape[:3], cardinality, radix, width)
        gap = splits.sum(4).mean((1, 2)).reshape(x.shape[0], -1)  # [N, cardinality * width]
        a = nn.Dense(cardinality * radix * width)(nn.relu(nn.Dense(7)(gap)))
        a = nn.softmax(a.reshape(-1, cardinality, radix, width), 2)
        x = (splits * a[:, None, None]).sum(4).reshape(*x.shape[:3], -1)
        return nn.Dense(3)(pooled(nn.relu(conv1(11)(x))))


class Ghost(nn.Module):
    """Half of the channels are made from the other half by a depthwise convolution."""

    @nn.compact
    def __call__(self, x, train=False):
        def ghost(x, width):
            x = nn.relu(nn.BatchNorm(not train)(conv1(width, use_bias=False)(x)))
            cheap = conv3(width, feature_group_count=width, use_bias=False)(x)
            return jnp.concatenate([x, nn.relu(nn.BatchNorm(not train)(cheap))], -1)

        x = ghost(x, 5)
        x += ghost(ghost(x, 7), 5)
        return nn.Dense(3)(pooled(x))


class ConvNeXt(nn.Module):
    """Patches, depthwise 7x7, LayerNorm, an MLP whose output is scaled channel by channel."""

    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm()(nn.Conv(7, (2, 2), strides=2)(x))
        y = nn.LayerNorm()(nn.Conv(7, (7, 7), feature_group_count=7)(x))
        y = nn.Dense(7)(nn.gelu(nn.Dense(13)(y)))
        x += self.param("gamma", nn.initializers.ones, (7,)).reshape(1, 1, 1, -1) * y
        x = nn.Conv(11, (2, 2), strides=2)(nn.LayerNorm()(x))
        return nn.Dense(3)(nn.LayerNorm()(pooled(x)))


class EfficientNet(nn.Module):
    """Inverted bottlenecks with squeeze and excite; in train mode whole samples are dropped."""

    @nn.compact
    def __call__(self, x, train=False):
        def norm(x):
            return nn.BatchNorm(not train)(x)

        x = nn.swish(norm(conv3(5, use_bias=False)(x)))
        y = nn.swish(norm(conv1(11, use_bias=False)(x)))
        y = nn.swish(norm(conv3(11, feature_group_count=11, use_bias=False)(y)))
        s = nn.swish(conv1(3)(y.mean((1, 2), keepdims=True)))
        y = norm(conv1(5, use_bias=False)(y * nn.sigmoid(conv1(11)(s))))
        x += nn.Dropout(0.3, broadcast_dims=(1, 2, 3), deterministic=not train)(y)
        return nn.Dense(3)(pooled(nn.swish(norm(conv1(13)(x)))))


class ShuffleNetV1(nn.Module):
    """Grouped convolutions with a channel shuffle in between."""

    @nn.compact
    def __call__(self, x):
        groups = 2
        x = nn.relu(conv1(14)(x))
        y = nn.relu(conv1(20, feature_group_count=groups)(x))
        y = y.reshape(*y.shape[:3], groups, -1).swapaxes(3, 4).reshape(y.shape)
        y = conv3(20, feature_group_count=20)(y)
        x = nn.relu(x + conv1(14, feature_group_count=groups)(y))
        return nn.Dense(3)(pooled(x))


class ShuffleNetV2(nn.Module):
    """Half of the channels pass; a shuffle mixes the halves."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(conv3(12)(x))
        for _ in range(2):
            a, b = jnp.split(x, 2, -1)
            b = conv3(6, feature_group_count=6)(nn.relu(conv1(6)(b)))
            b = nn.relu(conv1(6)(b))
            x = jnp.stack([a, b], -1).reshape(x.shape)
        return nn.Dense(3)(pooled(nn.relu(conv1(11)(x))))


class UNet(nn.Module):
    """Down, transposed convolutions up, skips concatenated."""

    @nn.compact
    def __call__(self, x):
        a = nn.relu(conv3(5)(x))
        b = nn.relu(conv3(7)(nn.max_pool(a, (2, 2), (2, 2))))
        c = nn.relu(conv3(11)(nn.max_pool(b, (2, 2), (2, 2))))
        up = nn.ConvTranspose(6, (2, 2), strides=(2, 2))(c)
        b = nn.relu(conv3(7)(jnp.concatenate([up, b], -1)))
        up = nn.ConvTranspose(5, (2, 2), strides=(2, 2))(b)
        a = nn.relu(conv3(3)(jnp.concatenate([up, a], -1)))
        return conv1(2)(a)


class FPN(nn.Module):
    """Lateral convolutions added on the way up; one head shared by all levels."""

    @nn.compact
    def __call__(self, x):
        a = nn.relu(conv3(5)(x))
        b = nn.relu(conv3(7, strides=2)(a))
        c = nn.relu(conv3(11, strides=2)(b))
        p3 = conv1(6)(c)
        p2 = conv1(6)(b) + jnp.repeat(jnp.repeat(p3, 2, 1), 2, 2)
        p1 = conv1(6)(a) + jax.image.resize(p2, (*a.shape[:3], 6), "nearest")
        tower, head = conv3(13), conv1(3)
        return [head(nn.relu(tower(p))) for p in (p1, p2, p3)]


class Hourglass(nn.Module):
    """Down and up again inside of a residual stream, with an intermediate output."""

    @nn.compact
    def __call__(self, x):
        def residual(x):
            return x + conv1(7)(nn.relu(conv3(5)(nn.relu(x))))

        x = conv3(7)(x)
        y = residual(nn.max_pool(x, (2, 2), (2, 2)))
        y = jnp.repeat(jnp.repeat(residual(y), 2, axis=1), 2, axis=2)
        x = residual(x) + y
        heat = conv1(3)(x)
        return heat, conv1(3)(residual(x + conv1(7)(heat)))


class TCN(nn.Module):
    """Dilated causal convolutions over time, added to a projection."""

    @nn.compact
    def __call__(self, x):
        for rate in (1, 2):
            y = nn.relu(nn.Conv(7, (2,), kernel_dilation=rate, padding="CAUSAL")(x))
            y = nn.relu(nn.Conv(11, (2,), kernel_dilation=rate, padding="CAUSAL")(y))
            x = nn.relu(y + nn.Conv(11, (1,))(x))
        return nn.Dense(3)(x)


class Video(nn.Module):
    """Three-dimensional convolutions, factorized into space and time."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(7, (2, 3, 3))(x))
        x = nn.relu(nn.Conv(5, (1, 3, 3))(x))
        x = nn.relu(nn.Conv(11, (3, 1, 1))(x))
        return nn.Dense(3)(nn.max_pool(x, (2, 2, 2), (2, 2, 2)).mean((1, 2, 3)))


class StandardizedConv(nn.Module):
    """A convolution whose kernel is standardized, by mean and variance over its inputs."""

    features: int

    @nn.compact
    def __call__(self, x):
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        kernel -= kernel.mean((0, 1, 2), keepdims=True)
        kernel /= kernel.std((0, 1, 2), keepdims=True) + 1e-3
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)


class WeightStandardized(nn.Module):
    """Weight standardization and group norm, as in BiT."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.GroupNorm(num_groups=3)(StandardizedConv(12)(x)))
        x = nn.relu(nn.GroupNorm(num_groups=2)(StandardizedConv(10)(x)))
        return nn.Dense(3)(pooled(x))


class GroupNormed(nn.Module):
    """Group norm inside of residual blocks."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.GroupNorm(num_groups=3)(conv3(15)(x)))
        y = nn.relu(nn.GroupNorm(num_groups=2)(conv3(10)(x)))
        x = nn.relu(x + nn.GroupNorm(num_groups=3)(conv3(15)(y)))
        return nn.Dense(3)(pooled(x))


class InstanceNormed(nn.Module):
    """Every channel of every image is normalized by itself; then style transfer's upsampling."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.InstanceNorm()(conv3(7)(x)))
        x = nn.relu(nn.InstanceNorm()(conv3(11, strides=2)(x)))
        x = jax.image.resize(x, (x.shape[0], 4, 4, x.shape[3]), "bilinear")
        return nn.tanh(conv3(3)(x))


class PixelShuffle(nn.Module):
    """Depth to space, and space to depth."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(conv3(28)(x))
        n, h, w, _ = x.shape
        x = x.reshape(n, h, w, 2, 2, 7).transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, 7)
        x = nn.relu(conv3(5)(x))
        x = x.reshape(n, h, 2, w, 2, 5).transpose(0, 1, 3, 2, 4, 5).reshape(n, h, w, 20)
        return conv1(3)(nn.relu(conv1(11)(x)))


class Deformable(nn.Module):
    """Every position is read where a convolution says, between pixels."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(conv3(7)(x))
        n, h, w, c = x.shape
        offsets = nn.tanh(conv3(2)(x)).reshape(n, h * w, 2)
        grid = jnp.stack(jnp.meshgrid(jnp.arange(h), jnp.arange(w), indexing="ij"), -1)
        at = grid.reshape(1, h * w, 2) + offsets
        low = jnp.floor(at)
        part = at - low  # [N, HW, 2]
        sampled = jnp.zeros((n, h * w, c))
        for dy in range(2):
            for dx in range(2):
                y = jnp.clip(low[..., 0] + dy, 0, h - 1).astype(jnp.int32)
                z = jnp.clip(low[..., 1] + dx, 0, w - 1).astype(jnp.int32)
                share = jnp.abs(1 - dy - part[..., :1]) * jnp.abs(1 - dx - part[..., 1:])
                values = jnp.take_along_axis(x.reshape(n, h * w, c), (y * w + z)[..., None], 1)
                sampled += share * values
        return nn.Dense(3)(nn.relu(nn.Dense(11)(sampled.reshape(n, h, w, c))))


class Detector(nn.Module):
    """A backbone and several heads: a dictionary of outputs."""

    @nn.compact
    def __call__(self, x):
        anchors, classes = 2, 5
        x = nn.relu(conv3(11)(nn.relu(conv3(7)(x))))
        boxes = conv1(4 * anchors)(nn.relu(conv3(5)(x))).reshape(x.shape[0], -1, 4)
        scores = conv1(classes * anchors)(nn.relu(conv3(6)(x))).reshape(x.shape[0], -1, classes)
        best = scores.max(-1)
        return {
            "boxes": jnp.concatenate([boxes[..., :2], jnp.exp(boxes[..., 2:])], -1),
            "scores": nn.sigmoid(scores),
            "class": scores.argmax(-1),
            "best": best,
        }


class Siamese(nn.Module):
    """One network called on two images, and the distance of what it says."""

    @nn.compact
    def __call__(self, x, y):
        first, second = conv3(7), nn.Dense(11)

        def embed(x):
            return second(nn.relu(first(x)).reshape(x.shape[0], -1))

        a, b = embed(x), embed(y)
        norms = jnp.sqrt((a * a).sum(-1) * (b * b).sum(-1) + 1e-6)
        return nn.Dense(2)(nn.tanh(jnp.abs(a - b))), (a * b).sum(-1) / norms


class CrossStage(nn.Module):
    """Part of the channels take a way around the stage (CSP), and an SPP pools at several sizes."""

    @nn.compact
    def __call__(self, x):
        x = nn.leaky_relu(conv3(12)(x))
        around, through = x[..., :5], x[..., 5:]
        through += nn.leaky_relu(conv3(7)(nn.leaky_relu(conv1(4)(through))))
        x = nn.leaky_relu(conv1(6)(jnp.concatenate([through, around], -1)))
        pools = [nn.max_pool(x, (k, k), padding="SAME") for k in (2, 3)]
        return conv1(3)(jnp.concatenate([x, *pools], -1))


NETWORKS: dict[str, Callable[[], Case]] = {
    "resnet_v1": lambda: linen(ResNetV1(), normal(*IMAGES), train=BATCH_NORM),
    "resnet_v2": lambda: linen(ResNetV2(), normal(*IMAGES), train=BATCH_NORM),
    "densenet": lambda: linen(DenseNet(), normal(*IMAGES), train=BATCH_NORM),
    "inception": lambda: linen(Inception(), normal(*IMAGES)),
    "squeezenet": lambda: linen(SqueezeNet(), normal(*IMAGES)),
    "squeeze_excite": lambda: linen(SqueezeExcite(), normal(*IMAGES)),
    "selective_kernel": lambda: linen(SelectiveKernel(), normal(*IMAGES)),
    "resnest": lambda: linen(ResNeSt(), normal(*IMAGES)),
    "ghost": lambda: linen(Ghost(), normal(*IMAGES), train=BATCH_NORM),
    "convnext": lambda: linen(ConvNeXt(), normal(*IMAGES)),
    "efficientnet": lambda: linen(
        EfficientNet(),
        normal(*IMAGES),
        train={**BATCH_NORM, "rngs": {"dropout": jax.random.key(1)}},
    ),
    "shufflenet_v1": lambda: linen(ShuffleNetV1(), normal(*IMAGES)),
    "shufflenet_v2": lambda: linen(ShuffleNetV2(), normal(*IMAGES)),
    "unet": lambda: linen(UNet(), normal(*IMAGES)),
    "fpn": lambda: linen(FPN(), normal(*IMAGES)),
    "hourglass": lambda: linen(Hourglass(), normal(*IMAGES)),
    "tcn": lambda: linen(TCN(), normal(2, 6, 3)),
    "video": lambda: linen(Video(), normal(2, 2, 4, 4, 3)),
    "weight_standardized": lambda: linen(WeightStandardized(), normal(*IMAGES)),
    "group_norm": lambda: linen(GroupNormed(), normal(*IMAGES)),
    "instance_norm": lambda: linen(InstanceNormed(), normal(*IMAGES)),
    "pixel_shuffle": lambda: linen(PixelShuffle(), normal(2, 2, 2, 3)),
    "deformable": lambda: linen(Deformable(), normal(*IMAGES)),
    "detector": lambda: linen(Detector(), normal(*IMAGES)),
    "siamese": lambda: linen(Siamese(), normal(*IMAGES), normal(*IMAGES, seed=1)),
    "cross_stage": lambda: linen(CrossStage(), normal(*IMAGES)),
}
