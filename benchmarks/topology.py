"""Whether blocks that are of no use are found and removed, and what is left of the program.

    python benchmarks/topology.py --out results/topology.json

A ResNet has every other block look only at the corner of the picture, and every Inception module a
tower that does; the digits' corners are empty, so that they can be of no use. After the run they
must be gone: from the variables, the layers, and the FLOPs of what XLA compiled.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from experiments import datasets
from experiments.networks.layers import BATCH_NORM_MOMENTUM, ConvNormRelu
from morph.cycle.config import CycleConfig
from morph.cycle.cycle import Cycle
from morph.network import Network, linen_network
from morph.training.data import Batch
from regularizers.channels.trace import trace_channels

SEEDS = (0, 1, 2)


def corner(picture: Any, channels: int) -> Any:
    """A map [N, H, W, channels] of which every number is the picture's first one."""
    return jnp.broadcast_to(picture[:, :1, :1, :1], (*picture.shape[:3], channels))


class Block(nn.Module):
    """A residual block; a useless one sees nothing but the picture's corner."""

    useless: bool

    @nn.compact
    def __call__(self, x: Any, picture: Any, train: bool = False) -> Any:
        """Returns the activations, shaped like `x`."""
        seen = corner(picture, x.shape[-1]) if self.useless else x
        y = ConvNormRelu(x.shape[-1])(seen, train)
        y = nn.Conv(x.shape[-1], (3, 3), use_bias=False)(y)
        y = nn.BatchNorm(use_running_average=not train, momentum=BATCH_NORM_MOMENTUM)(y)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Six blocks, of which every other one is useless."""

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        """Returns the logits."""
        picture = x
        x = ConvNormRelu(16)(x, train)
        for i in range(6):
            x = Block(useless=i % 2 == 1)(x, picture, train)
        return nn.Dense(10)(x.mean((1, 2)))


class Towers(nn.Module):
    """Three towers; the last sees nothing but the picture's corner."""

    @nn.compact
    def __call__(self, x: Any, picture: Any, train: bool = False) -> Any:
        """Returns the activations, [N, H, W, 40]."""
        first = ConvNormRelu(16, (1, 1))(x, train)
        second = ConvNormRelu(16)(ConvNormRelu(8, (1, 1))(x, train), train)
        useless = ConvNormRelu(8)(ConvNormRelu(8)(corner(picture, x.shape[-1]), train), train)
        return jnp.concatenate([first, second, useless], axis=-1)


class Inception(nn.Module):
    """Two modules of three towers, of which one is useless."""

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        """Returns the logits."""
        picture = x
        x = ConvNormRelu(16)(x, train)
        for _ in range(2):
            x = Towers()(x, picture, train)
        return nn.Dense(10)(x.mean((1, 2)))


USELESS = {
    "resnet": (ResNet, {"Block_1", "Block_3", "Block_5"}),
    "inception": (
        Inception,
        {"Towers_0/ConvNormRelu_3/Conv_0", "Towers_1/ConvNormRelu_3/Conv_0"},
    ),
}


def compiled_flops(network: Network, variables: Any, x: Any) -> float:
    """What XLA counts in the compiled program; it leaves padding out."""
    return float(jax.jit(network.predict).lower(variables, x).compile().cost_analysis()["flops"])


def learn(name: str, seed: int) -> dict[str, Any]:
    """One run, and what is left of the useless blocks."""
    module, useless = USELESS[name]
    data = datasets.load("digits")
    network = linen_network(module())
    train = Batch(data.train_images, data.train_labels)
    x = jnp.asarray(data.test_images[:1])
    config = CycleConfig(
        budget=0.3,
        penalty="gamma",  # which pulls on blocks, too
        shrink_steps=600,
        retrain_steps=100,
        seed=seed,
    )
    with tempfile.TemporaryDirectory() as workdir:
        cycle = Cycle(
            network=network,
            train=train,
            test=Batch(data.test_images, data.test_labels),
            config=config,
            workdir=Path(workdir),
        )
        result = cycle.run()
    whole = network.init(jax.random.key(0), x)
    graph = trace_channels(network.predict, whole, x)
    assert useless <= set(graph.blocks), sorted(graph.blocks)
    removed = {block.name for block in result.architecture.removed}
    left = trace_channels(result.network.predict, result.variables, x)
    gone = {layer for block in removed for layer in graph.blocks[block].layers}
    size = sum(leaf.size for leaf in jax.tree.leaves(result.variables["params"]))
    seed_size = sum(leaf.size for leaf in jax.tree.leaves(whole["params"]))
    return {
        "network": name,
        "seed": seed,
        "useless": sorted(useless),
        "removed": sorted(removed),
        "missed": sorted(useless - removed),
        "also_removed": sorted(removed - useless),
        "layers_left_of_removed": sorted(gone & set(left.layers)),
        "parameters": [seed_size, size],
        "compiled_flops": [
            compiled_flops(network, whole, x),
            compiled_flops(result.network, result.variables, x),
        ],
        "accuracy": {o.name: o.accuracy for o in result.outcomes},
        "logit_difference": max(o.logit_difference or 0.0 for o in result.outcomes),
    }


def main() -> None:
    """Learns both, with several seeds, and prints what became of the useless blocks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="*", default=list(USELESS), choices=list(USELESS))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = []
    for name in arguments.networks:
        for seed in SEEDS:
            rows.append(row := learn(name, seed))
            print(json.dumps(row), flush=True)
    data = {
        "command": shlex.join(["python", *sys.argv]),
        "found": not any(row["missed"] or row["layers_left_of_removed"] for row in rows),
        "rows": rows,
    }
    print("every useless block was found and removed:", data["found"])
    if arguments.out:
        arguments.out.write_text(json.dumps(data, indent=2) + "\n")


if __name__ == "__main__":
    main()
