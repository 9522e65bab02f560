"""Networks that only the benchmarks use: standard architectures for 224x224, 1000 classes.

`MODELS` lists them with their published number of parameters; `abstract` checks it.
"""

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

IMAGE = (1, 224, 224, 3)


def batch_norm(train: bool) -> Callable[..., nn.BatchNorm]:
    """BatchNorm that uses its running statistics unless `train`."""
    return partial(nn.BatchNorm, use_running_average=not train)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 beside a shortcut; relu after the sum."""

    widths: tuple[int, int, int]
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Returns the activations, with as many channels as the last of the widths."""
        conv, norm = partial(nn.Conv, use_bias=False), batch_norm(train)
        first, second, outer = self.widths
        y = nn.relu(norm()(conv(first, (1, 1))(x)))
        y = nn.relu(norm()(conv(second, (3, 3), self.stride)(y)))
        y = norm()(conv(outer, (1, 1))(y))
        if x.shape != y.shape:
            x = norm()(conv(outer, (1, 1), self.stride)(x))
        return nn.relu(x + y)


class ResNet(nn.Module):
    """ResNet v1.5 (He et al. 2015, table 1; the stride on the 3x3).

    `widths` may name other widths, by the path of the convolution that first makes them.
    """

    blocks: tuple[int, ...]
    num_classes: int = 1000
    widths: Mapping[str, int] | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits, [N, num_classes]."""
        widths = self.widths or {}
        x = nn.Conv(widths.get("Conv_0", 64), (7, 7), 2, use_bias=False)(x)
        x = nn.relu(batch_norm(train)()(x))
        x = nn.max_pool(x, (3, 3), (2, 2), padding="SAME")
        starts = np.cumsum((0, *self.blocks))
        for stage, (start, end) in enumerate(itertools.pairwise(starts.tolist())):
            tied = f"Bottleneck_{start}/Conv_2"  # by the shortcuts of the stage
            for block in range(start, end):
                names = (f"Bottleneck_{block}/Conv_0", f"Bottleneck_{block}/Conv_1", tied)
                seed = (64 * 2**stage, 64 * 2**stage, 256 * 2**stage)
                own = tuple(widths.get(name, w) for name, w in zip(names, seed, strict=True))
                x = Bottleneck(own, 2 if stage and block == start else 1)(x, train)
        return nn.Dense(self.num_classes)(x.mean(axis=(1, 2)))


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1; a shortcut where the shape stays."""

    features: int
    stride: int
    expansion: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Returns the activations, with `features` channels."""
        conv, norm, y = partial(nn.Conv, use_bias=False), batch_norm(train), x
        wide = self.expansion * x.shape[-1]
        if self.expansion > 1:
            y = nn.relu6(norm()(conv(wide, (1, 1))(y)))
        y = conv(wide, (3, 3), self.stride, padding=1, feature_group_count=wide)(y)
        y = nn.relu6(norm()(y))
        y = norm()(conv(self.features, (1, 1))(y))
        return x + y if x.shape == y.shape else y


class MobileNetV2(nn.Module):
    """MobileNetV2 (Sandler et al. 2018, table 2)."""

    num_classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits, [N, num_classes]."""
        stages = (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        )
        conv, norm = partial(nn.Conv, use_bias=False), batch_norm(train)
        x = nn.relu6(norm()(conv(32, (3, 3), 2, padding=1)(x)))
        for expansion, features, blocks, stride in stages:
            for block in range(blocks):
                x = InvertedResidual(features, 1 if block else stride, expansion)(x, train)
        x = nn.relu6(norm()(conv(1280, (1, 1))(x)))
        return nn.Dense(self.num_classes)(x.mean(axis=(1, 2)))


class DenseNet121(nn.Module):
    """DenseNet-121 (Huang et al. 2017, table 1): every layer is concatenated to all before it."""

    growth: int = 32
    blocks: tuple[int, ...] = (6, 12, 24, 16)
    num_classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits, [N, num_classes]."""
        conv, norm = partial(nn.Conv, use_bias=False), batch_norm(train)
        x = nn.relu(norm()(conv(2 * self.growth, (7, 7), 2, padding=3)(x)))
        x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        for stage, layers in enumerate(self.blocks):
            if stage:
                x = conv(x.shape[-1] // 2, (1, 1))(nn.relu(norm()(x)))
                x = nn.avg_pool(x, (2, 2), (2, 2))
            for _ in range(layers):
                y = conv(4 * self.growth, (1, 1))(nn.relu(norm()(x)))
                y = conv(self.growth, (3, 3), padding=1)(nn.relu(norm()(y)))
                x = jnp.concatenate([x, y], axis=-1)
        return nn.Dense(self.num_classes)(nn.relu(norm()(x)).mean(axis=(1, 2)))


class Mlp(nn.Module):
    """Dense, gelu, Dense."""

    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns an array of the shape of `x`."""
        y = nn.gelu(nn.Dense(self.hidden)(x), approximate=False)
        return nn.Dense(x.shape[-1])(y)


class ViT(nn.Module):
    """Vision transformer (Dosovitskiy et al. 2021, table 1) with a class token."""

    layers: int
    features: int
    heads: int
    patch: int = 16
    num_classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits, [N, num_classes]."""
        x = nn.Conv(self.features, (self.patch, self.patch), self.patch)(x)
        x = x.reshape(x.shape[0], -1, self.features)
        token = self.param("token", nn.initializers.zeros, (1, 1, self.features))
        x = jnp.concatenate([jnp.tile(token, (x.shape[0], 1, 1)), x], axis=1)
        x = x + self.param("position", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        for _ in range(self.layers):
            x = x + nn.MultiHeadDotProductAttention(self.heads)(nn.LayerNorm()(x))
            x = x + Mlp(4 * self.features)(nn.LayerNorm()(x))
        return nn.Dense(self.num_classes)(nn.LayerNorm()(x)[:, 0])


class WindowAttention(nn.Module):
    """Attention inside windows, with relative position bias; the map is rolled by `shift`."""

    heads: int
    window: int
    shift: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns an array of the shape of `x`, [N, H, W, C]; windows must divide H and W."""
        n, height, width, channels = x.shape
        w, cells = self.window, self.window**2
        x = jnp.roll(x, (-self.shift, -self.shift), (1, 2))
        x = x.reshape(n, height // w, w, width // w, w, channels)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, cells, channels)
        qkv = nn.Dense(3 * channels)(x).reshape(-1, cells, 3, self.heads, channels // self.heads)
        q, k, v = jnp.moveaxis(qkv, 2, 0)  # each [windows, cells, heads, head width]
        scores = jnp.einsum("bqhd,bkhd->bhqk", q * q.shape[-1] ** -0.5, k)
        table = self.param(
            "bias", nn.initializers.truncated_normal(0.02), ((2 * w - 1) ** 2, self.heads)
        )
        scores += table[relative_position(w)].transpose(2, 0, 1)
        if self.shift:
            scores = scores.reshape(n, -1, self.heads, cells, cells)
            scores += shift_mask(height, width, w, self.shift)[:, None]
            scores = scores.reshape(-1, self.heads, cells, cells)
        x = jnp.einsum("bhqk,bkhd->bqhd", nn.softmax(scores), v).reshape(-1, cells, channels)
        x = nn.Dense(channels)(x).reshape(n, height // w, width // w, w, w, channels)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(n, height, width, channels)
        return jnp.roll(x, (self.shift, self.shift), (1, 2))


def relative_position(window: int) -> np.ndarray:
    """Int [cells, cells]: which row of the bias table a pair of cells reads."""
    cells = np.stack(np.mgrid[:window, :window], axis=-1).reshape(-1, 2)
    offset = cells[:, None] - cells[None] + window - 1
    return offset[..., 0] * (2 * window - 1) + offset[..., 1]


def shift_mask(height: int, width: int, window: int, shift: int) -> np.ndarray:
    """Float [windows, cells, cells]: -100 between cells that the roll brought together."""
    edges = [-window, -shift]
    rows, columns = (np.digitize(np.arange(n), [n + e for e in edges]) for n in (height, width))
    region = 3 * rows[:, None] + columns
    region = region.reshape(height // window, window, width // window, window)
    region = region.transpose(0, 2, 1, 3).reshape(-1, window**2)
    return np.where(region[:, None] == region[:, :, None], 0.0, -100.0).astype(np.float32)


class SwinT(nn.Module):
    """Swin-T (Liu et al. 2021, table 7)."""

    features: int = 96
    blocks: tuple[int, ...] = (2, 2, 6, 2)
    window: int = 7
    num_classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits, [N, num_classes]."""
        x = nn.LayerNorm()(nn.Conv(self.features, (4, 4), 4)(x))
        for stage, blocks in enumerate(self.blocks):
            if stage:  # patch merging
                x = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
                x = nn.LayerNorm()(jnp.concatenate(x, axis=-1))
                x = nn.Dense(x.shape[-1] // 2, use_bias=False)(x)
            window = min(self.window, *x.shape[1:3])
            for block in range(blocks):
                shift = window // 2 if block % 2 and window < x.shape[1] else 0
                x = x + WindowAttention(3 * 2**stage, window, shift)(nn.LayerNorm()(x))
                x = x + Mlp(4 * x.shape[-1])(nn.LayerNorm()(x))
        return nn.Dense(self.num_classes)(nn.LayerNorm()(x).mean(axis=(1, 2)))


class Chain(nn.Module):
    """A deep chain of small residual blocks, or of blocks that concatenate; for scaling only."""

    blocks: int
    features: int = 8
    dense: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits, [N, 10]."""
        x = nn.Dense(self.features)(x)
        for _ in range(self.blocks):
            y = nn.gelu(nn.Dense(2 * self.features)(nn.LayerNorm()(x)))
            y = nn.Dense(self.features)(y)
            x = jnp.concatenate([x, y], axis=-1) if self.dense else x + y
        return nn.Dense(10)(x)


# The constructor, and the published number of parameters.
MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet50": (partial(ResNet, (3, 4, 6, 3)), 25_557_032),
    "resnet101": (partial(ResNet, (3, 4, 23, 3)), 44_549_160),
    "mobilenet_v2": (MobileNetV2, 3_504_872),
    "densenet121": (DenseNet121, 7_978_856),
    "vit_b16": (partial(ViT, 12, 768, 12), 86_567_656),
    "vit_l16": (partial(ViT, 24, 1024, 16), 304_326_632),
    "swin_t": (SwinT, 28_288_354),
}


def abstract(name: str) -> tuple[nn.Module, Any, jax.ShapeDtypeStruct]:
    """A network of `MODELS`, its variables as shapes, and its input at batch size 1.

    Raises:
        AssertionError: if it has not the published number of parameters.
    """
    build, published = MODELS[name]
    model, x = build(), jax.ShapeDtypeStruct(IMAGE, jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    found = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    if found != published:
        raise AssertionError(f"{name} has {found} parameters, published are {published}")
    return model, variables, x


def random_variables(variables: Any, seed: int = 0) -> Any:
    """Numbers for abstract variables, drawn with numpy: no initialiser is compiled."""
    draw = np.random.default_rng(seed)

    def leaf(path: Any, struct: jax.ShapeDtypeStruct) -> jax.Array:
        fan_in = max(1, struct.size // struct.shape[-1]) if len(struct.shape) > 1 else 1
        values = draw.standard_normal(struct.shape, np.float32) / np.sqrt(fan_in)
        is_scale = path[-1].key in ("scale", "var")  # near one, and never negative
        return jax.device_put(1.0 + 0.1 * np.abs(values) if is_scale else values)  # no compilation

    return jax.tree_util.tree_map_with_path(leaf, variables)
