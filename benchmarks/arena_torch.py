"""Contestants of the arena in PyTorch: Torch-Pruning's modes, and the uniform multiplier.

Runs in Torch-Pruning's environment, which has no JAX: one line of JSON for each that it reads,
`{"mode", "budget", "seed"}`. Arguments: a file of arrays, the row, its steps.

Group-SL is trained as its own scripts do (reproduce/scripts/prune/cifar): importance by norms over
the largest of a group, reg 5e-4, no weight decay while it pulls, then pruning in steps of 1/400
until the FLOPs are met.
"""

import copy
import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
import torch_pruning as tp
from arena_rows import BATCH, ROWS, WEIGHT_DECAY, Row
from torch import Tensor, nn
from torch.nn import functional
from torch_models import Attention, ViTBlock, conv_norm

SEEN = 0.4  # the share of the steps before a one-shot cut
SPARSE = (0.2, 0.6)  # Group-SL pulls between these shares of the steps, and cuts at the latter
STEPS = 400  # of pruning, until the budget is met
CALIBRATION = 512


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut; relu after the sum."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = (
            conv_norm(inputs, outputs, 3, stride),
            conv_norm(outputs, outputs, 3),
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else conv_norm(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Returns activations, or logits at the end."""
        y = self.second(functional.relu(self.first(x)))
        return functional.relu(self.shortcut(x) + y)


class ResNet(nn.Module):
    """A ResNet of depth 6n + 2 for small images."""

    def __init__(self, depth: int, scale: float = 1.0) -> None:
        super().__init__()
        widths = [max(1, round(scale * width)) for width in (16, 32, 64)]
        self.stem, inputs, blocks = conv_norm(3, widths[0], 3), widths[0], []
        for stage, outputs in enumerate(widths):
            for number in range((depth - 2) // 6):
                blocks.append(Block(inputs, outputs, 2 if stage and not number else 1))
                inputs = outputs
        self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(inputs, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Returns activations, or logits at the end."""
        return self.head(self.blocks(functional.relu(self.stem(x))).mean((2, 3)))


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide, self.same = 4 * inputs, stride == 1 and inputs == outputs
        self.expand = conv_norm(inputs, wide, 1)
        self.depth = conv_norm(wide, wide, 3, stride, groups=wide)
        self.project = conv_norm(wide, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns activations, or logits at the end."""
        y = functional.relu(self.depth(functional.relu(self.expand(x))))
        return x + self.project(y) if self.same else self.project(y)


class MobileNet(nn.Module):
    """A MobileNetV2 of three stages of two blocks."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        first, last = (max(1, round(scale * width)) for width in (16, 128))
        self.stem, inputs, blocks = conv_norm(3, first, 3), first, []
        for features, stride in ((16, 1), (24, 2), (32, 2)):
            outputs = max(1, round(scale * features))
            blocks += [
                InvertedResidual(inputs, outputs, stride),
                InvertedResidual(outputs, outputs, 1),
            ]
            inputs = outputs
        self.blocks, self.last = nn.Sequential(*blocks), conv_norm(inputs, last, 1)
        self.head = nn.Linear(last, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Returns activations, or logits at the end."""
        x = self.blocks(functional.relu(self.stem(x)))
        return self.head(functional.relu(self.last(x)).mean((2, 3)))


class Towers(nn.Module):
    """Four towers side by side: 1x1; 1x1-3x3; 1x1-3x3-3x3; pool-1x1."""

    def __init__(self, inputs: int, outputs: int, bottleneck: int) -> None:
        super().__init__()
        self.one = conv_norm(inputs, outputs, 1)
        self.three1, self.three2 = (
            conv_norm(inputs, bottleneck, 1),
            conv_norm(bottleneck, outputs, 3),
        )
        self.five1, self.five2 = conv_norm(inputs, bottleneck, 1), conv_norm(bottleneck, outputs, 3)
        self.five3, self.pool = conv_norm(outputs, outputs, 3), conv_norm(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns activations, or logits at the end."""
        relu = functional.relu
        three = relu(self.three2(relu(self.three1(x))))
        five = relu(self.five3(relu(self.five2(relu(self.five1(x))))))
        pool = relu(self.pool(functional.avg_pool2d(x, 3, 1, 1)))
        return torch.cat([relu(self.one(x)), three, five, pool], 1)


class Inception(nn.Module):
    """A 3x3 stem, three `Towers` with max pooling between them, global mean, dense."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        widths = (16, 24, 32)
        inputs = max(1, round(scale * widths[0]))
        self.stem, blocks = conv_norm(3, inputs, 3), []
        for number, width in enumerate(widths):
            outputs, narrow = (max(1, round(scale * w)) for w in (width, width // 2))
            blocks += [nn.MaxPool2d(2)] if number else []
            blocks.append(Towers(inputs, outputs, narrow))
            inputs = 4 * outputs
        self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(inputs, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Returns activations, or logits at the end."""
        return self.head(self.blocks(functional.relu(self.stem(x))).mean((2, 3)))


class ViT(nn.Module):
    """Patches of 4x4, learned positions, four pre-norm blocks of four heads, the mean of tokens."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        width = 4 * max(1, round(scale * 16))
        self.embed = nn.Conv2d(3, width, 4, 4)
        self.position = nn.Parameter(0.02 * torch.randn(1, 16, width))
        self.blocks = nn.Sequential(*(ViTBlock(width, 4) for _ in range(4)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Returns activations, or logits at the end."""
        x = self.embed(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.blocks(x)).mean(1))


class MLP(nn.Module):
    """784-300-100-10."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        first, second = (max(1, round(scale * width)) for width in (300, 100))
        self.first, self.second = nn.Linear(784, first), nn.Linear(first, second)
        self.head = nn.Linear(second, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Returns activations, or logits at the end."""
        relu = functional.relu
        return self.head(relu(self.second(relu(self.first(x.flatten(1))))))


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "resnet8": lambda scale=1.0: ResNet(8, scale),
    "resnet20": lambda scale=1.0: ResNet(20, scale),
    "mobilenet": MobileNet,
    "inception": Inception,
    "vit": ViT,
    "mlp": MLP,
}


def drawn(model: nn.Module) -> nn.Module:
    """The model with weights drawn as Flax's are: truncated normal, of variance 1 / fan-in."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            deviation = math.sqrt(1.0 / fan_in) / 0.87962566103423978
            nn.init.trunc_normal_(module.weight, 0.0, deviation, -2 * deviation, 2 * deviation)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            module.reset_parameters()
    return model


def flops(model: nn.Module, image: Tensor) -> float:
    """FLOPs of convolutions and products with one image, padding counted, two each."""
    found = []

    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if isinstance(module, Attention):
            _, tokens, _ = inputs[0].shape
            found.append(4 * tokens * tokens * module.out.in_features)
        elif isinstance(module, nn.Conv2d):
            found.append(2 * output.numel() * module.weight[0].numel())
        else:
            found.append(2 * output.numel() * module.in_features)

    kinds = (nn.Conv2d, nn.Linear, Attention)
    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, kinds)]
    with torch.no_grad():
        model.eval()(image)
    for hook in hooks:
        hook.remove()
    return float(sum(found))


class Contest:
    """One row of the arena."""

    def __init__(self, row: Row, path: str) -> None:
        self.row = row
        with np.load(path) as file:
            self.data = {name: torch.from_numpy(file[name]) for name in file.files}
        self.image = self.data["train_x"][:1]
        self.dense = flops(NETWORKS[row.network](), self.image)
        self.cuts: dict[Any, nn.Module] = {}  # what modes found

    def batches(self, start: int, end: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Of a step to another, without replacement within a pass."""
        count = len(self.data["train_y"])
        per_pass = count // BATCH
        for step in range(start, end):
            if step == start or step % per_pass == 0:
                order = np.random.default_rng([seed, step // per_pass]).permutation(count)
            chosen = torch.from_numpy(order[step % per_pass * BATCH :][:BATCH])
            yield self.data["train_x"][chosen], self.data["train_y"][chosen]

    def optimizer(self, model: nn.Module, decay: float) -> torch.optim.Optimizer:
        """The row's."""
        kernels = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim <= 1]
        groups = [
            {"params": kernels, "weight_decay": decay},
            {"params": others, "weight_decay": 0.0},
        ]
        if self.row.optimizer == "momentum":
            return torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True)
        return torch.optim.AdamW(groups, lr=0.0, eps=1e-8)

    def rate(self, step: int) -> float:
        """Linear warm-up over a tenth of the steps, at most 500, then a cosine to zero."""
        steps, peak = self.row.steps, self.row.learning_rate
        ramp = min(steps // 10, 500)
        if step < ramp:
            return peak * step / ramp
        return 0.5 * peak * (1 + math.cos(math.pi * (step - ramp) / (steps - ramp)))

    def train(
        self,
        model: nn.Module,
        start: int,
        end: int,
        seed: int,
        pruner: Any = None,
        before: torch.optim.Optimizer | None = None,
    ) -> torch.optim.Optimizer:
        """From a step of the schedule to another; with a pruner that pulls, without decay."""
        optimizer = before or self.optimizer(model, 0.0 if pruner else WEIGHT_DECAY)
        if before is not None:
            for group, decay in zip(optimizer.param_groups, (WEIGHT_DECAY, 0.0), strict=True):
                group["weight_decay"] = 0.0 if pruner else decay
        model.train()
        for step, (x, y) in enumerate(self.batches(start, end, seed), start):
            for group in optimizer.param_groups:
                group["lr"] = self.rate(step)
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            if pruner is not None:
                pruner.regularize(model)
            optimizer.step()
        return optimizer

    def pruner(self, model: nn.Module, kind: str) -> Any:
        """Torch-Pruning's, which removes a 400th of all channels at each step."""
        importance = {
            "magnitude": lambda: tp.importance.GroupMagnitudeImportance(p=2),
            "isomorphic": lambda: tp.importance.GroupMagnitudeImportance(p=2),
            "taylor": tp.importance.GroupTaylorImportance,
            "group_sl": lambda: tp.importance.GroupMagnitudeImportance(p=2, normalizer="max"),
        }[kind]()
        attentions = [m for m in model.modules() if isinstance(m, Attention)]
        more: dict[str, Any] = {"reg": 5e-4} if kind == "group_sl" else {}
        made = tp.pruner.GroupNormPruner if kind == "group_sl" else tp.pruner.MagnitudePruner
        return made(
            model,
            self.image,
            importance=importance,
            global_pruning=True,
            isomorphic=kind == "isomorphic",
            iterative_steps=STEPS,
            pruning_ratio=1.0,
            ignored_layers=[model.head],
            num_heads={attention.qkv: attention.heads for attention in attentions},
            in_channel_groups={},
            out_channel_groups={},
            unwrapped_parameters=[(model.position, 2)] if hasattr(model, "position") else None,
            **more,
        )

    def cut(self, model: nn.Module, pruner: Any, kind: str, budget: float, seed: int) -> None:
        """Prunes step by step until the FLOPs are met."""
        model.eval()
        if kind == "taylor":
            chosen = np.random.default_rng(seed).permutation(len(self.data["train_y"]))[
                :CALIBRATION
            ]
            x, y = (self.data[f"train_{name}"][torch.from_numpy(chosen)] for name in "xy")
        while flops(model, self.image) > budget * self.dense:
            if pruner.current_step == STEPS:
                raise RuntimeError(f"{kind} cannot reach {budget}")
            if kind == "taylor":  # gradients of what is left
                model.zero_grad()
                functional.cross_entropy(model(x), y).backward()
            pruner.step()

    def run(self, mode: str, budget: float, seed: int) -> dict[str, Any]:
        """Trains one contestant, and tells what came out."""
        started = time.monotonic()
        torch.manual_seed(seed)
        steps = self.row.steps
        if mode == "uniform":
            scales = np.linspace(1.0, 0.0, 2001)
            made = NETWORKS[self.row.network]
            scale = next(s for s in scales if flops(made(s), self.image) <= budget * self.dense)
            torch.manual_seed(seed)
            model = drawn(made(scale))
            self.train(model, 0, steps, seed)
        elif mode.endswith(", scratch"):
            model, _ = self.found(mode.removesuffix(", scratch"), budget, seed)
            torch.manual_seed(seed)
            drawn(model)
            self.train(model, 0, steps, seed)
        else:
            model, last = self.found(mode, budget, seed)
            self.train(model, last, steps, seed)
        return {
            "held_out": self.right(model, "held_out"),
            "test": self.right(model, "test"),
            "flops": flops(model, self.image) / self.dense,
            "widths": {
                name: module.weight.shape[0]
                for name, module in model.named_modules()
                if isinstance(module, nn.Conv2d | nn.Linear)
            },
            "seconds": time.monotonic() - started,
        }

    def found(self, kind: str, budget: float, seed: int) -> tuple[nn.Module, int]:
        """What a mode cut, and after how many steps; each only once."""
        first, last = SPARSE if kind == "group_sl" else (SEEN, SEEN)
        first, last = round(first * self.row.steps), round(last * self.row.steps)
        if (key := (kind, budget, seed)) not in self.cuts:
            torch.manual_seed(seed)
            model = drawn(NETWORKS[self.row.network]())
            optimizer = self.train(model, 0, first, seed)
            pruner = self.pruner(model, kind)
            if last > first:
                self.train(model, first, last, seed, pruner, optimizer)
            self.cut(model, pruner, kind, budget, seed)
            self.cuts[key] = model
        return copy.deepcopy(self.cuts[key]), last

    def right(self, model: nn.Module, name: str) -> float:
        """The share of right answers."""
        model.eval()
        with torch.no_grad():
            told = [model(x).argmax(-1) for x in self.data[f"{name}_x"].split(1000)]
        return float((torch.cat(told) == self.data[f"{name}_y"]).float().mean())


def main() -> None:
    """Answers until its input ends; the first line holds the versions."""
    torch.set_num_threads(1)
    names = ("torch", "torch-pruning")
    print(json.dumps({name: version(name) for name in names}), flush=True)
    row = dataclasses.replace(ROWS[sys.argv[2]], steps=int(sys.argv[3]))
    contest = Contest(row, sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(contest.run(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
