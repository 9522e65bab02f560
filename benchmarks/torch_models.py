"""The networks of `models.py` that the comparison needs, in PyTorch.

This file and Torch-Pruning live in an environment of their own, see `torch_pruning.py`.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional


def conv_norm(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Module:
    """A convolution without bias that keeps the map at stride 1, and its batch norm."""
    conv = nn.Conv2d(
        inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False
    )
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 beside a shortcut; relu after the sum."""

    def __init__(self, inputs: int, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.reduce = conv_norm(inputs, inner, 1)
        self.spatial = conv_norm(inner, inner, 3, stride)
        self.expand = conv_norm(inner, outer, 1)
        same = stride == 1 and inputs == outer
        self.shortcut = nn.Identity() if same else conv_norm(inputs, outer, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the activations, with `outer` channels."""
        y = functional.relu(self.spatial(functional.relu(self.reduce(x))))
        return functional.relu(self.shortcut(x) + self.expand(y))


class ResNet(nn.Module):
    """ResNet v1.5 (He et al. 2015, table 1; the stride on the 3x3)."""

    def __init__(self, blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_norm(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1))
        layers, inputs = [], 64
        for stage, number in enumerate(blocks):
            for block in range(number):
                stride = 2 if stage and block == 0 else 1
                layers.append(Bottleneck(inputs, 64 * 2**stage, 256 * 2**stage, stride))
                inputs = 256 * 2**stage
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits, [N, 1000]."""
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = expansion * inputs
        self.has_shortcut = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            *([conv_norm(inputs, wide, 1), nn.ReLU6()] if expansion > 1 else []),
            conv_norm(wide, wide, 3, stride, groups=wide),
            nn.ReLU6(),
            conv_norm(wide, outputs, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns the activations."""
        return x + self.body(x) if self.has_shortcut else self.body(x)


class MobileNetV2(nn.Module):
    """MobileNetV2 (Sandler et al. 2018, table 2)."""

    def __init__(self) -> None:
        super().__init__()
        stages = (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        )
        layers, inputs = [conv_norm(3, 32, 3, 2), nn.ReLU6()], 32
        for expansion, outputs, blocks, stride in stages:
            for block in range(blocks):
                layers.append(InvertedResidual(inputs, outputs, 1 if block else stride, expansion))
                inputs = outputs
        self.body = nn.Sequential(*layers, conv_norm(inputs, 1280, 1), nn.ReLU6())
        self.head = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits, [N, 1000]."""
        return self.head(self.body(x).mean((2, 3)))


class DenseLayer(nn.Module):
    """Norm, relu, 1x1, norm, relu, 3x3 on the concatenation of all maps before it."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(4 * growth)
        self.conv1 = nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Returns the new map."""
        x = self.conv1(functional.relu(self.norm1(torch.cat(maps, 1))))
        return self.conv2(functional.relu(self.norm2(x)))


class DenseBlock(nn.Module):
    """Layers that each see all maps before them."""

    def __init__(self, layers: int, inputs: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DenseLayer(inputs + i * growth, growth) for i in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """Returns all maps, concatenated."""
        maps = [x]
        for layer in self.layers:
            maps.append(layer(maps))
        return torch.cat(maps, 1)


class DenseNet121(nn.Module):
    """DenseNet-121 (Huang et al. 2017, table 1)."""

    def __init__(self, growth: int = 32, blocks: tuple[int, ...] = (6, 12, 24, 16)) -> None:
        super().__init__()
        width = 2 * growth
        layers = [conv_norm(3, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)]
        for stage, number in enumerate(blocks):
            if stage:
                halve = nn.Conv2d(width, width // 2, 1, bias=False)
                layers += [nn.BatchNorm2d(width), nn.ReLU(), halve, nn.AvgPool2d(2)]
                width //= 2
            layers.append(DenseBlock(number, width, growth))
            width += number * growth
        self.body = nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits, [N, 1000]."""
        return self.head(self.body(x).mean((2, 3)))


class Attention(nn.Module):
    """Multi-head self-attention; the width of a head is read off the projection when called."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(features, 3 * features), nn.Linear(features, features)

    def forward(self, x: Tensor) -> Tensor:
        """Returns an array of the shape of `x`."""
        n, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(n, tokens, -1))


class ViTBlock(nn.Module):
    """Attention and a two-layer perceptron, each behind a norm and beside a shortcut."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(features), nn.LayerNorm(features)
        self.attention = Attention(features, heads)
        self.fc1, self.fc2 = nn.Linear(features, 4 * features), nn.Linear(4 * features, features)

    def forward(self, x: Tensor) -> Tensor:
        """Returns an array of the shape of `x`."""
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))


class ViT(nn.Module):
    """Vision transformer (Dosovitskiy et al. 2021, table 1) with a class token."""

    def __init__(self, layers: int, features: int, heads: int, patch: int = 16) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, features, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, features))
        self.position = nn.Parameter(torch.zeros(1, (224 // patch) ** 2 + 1, features))
        self.blocks = nn.Sequential(*(ViTBlock(features, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(features), nn.Linear(features, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits, [N, 1000]."""
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


# The constructor, and the published number of parameters.
MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet50": (partial(ResNet, (3, 4, 6, 3)), 25_557_032),
    "resnet101": (partial(ResNet, (3, 4, 23, 3)), 44_549_160),
    "mobilenet_v2": (MobileNetV2, 3_504_872),
    "densenet121": (DenseNet121, 7_978_856),
    "vit_b16": (partial(ViT, 12, 768, 12), 86_567_656),
}


def build(name: str) -> nn.Module:
    """A network of `MODELS` with random parameters, in inference mode.

    Raises:
        AssertionError: if it has not the published number of parameters.
    """
    constructor, published = MODELS[name]
    model = constructor().eval()
    found = sum(parameter.numel() for parameter in model.parameters())
    if found != published:
        raise AssertionError(f"{name} has {found} parameters, published are {published}")
    return model
