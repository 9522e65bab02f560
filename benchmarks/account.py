"""What regularization adds to a training step on eight devices, by XLA's account of the program.

    export XLA_FLAGS=--xla_force_host_platform_device_count=8
    python benchmarks/account.py --out results/account.json

No weight exists: steps with Adam are compiled for eight devices from shapes alone, and nothing
runs. ResNet-50 with its batches divided (data=8), ViT-L/16 with its variables divided, too
(data=2,fsdp=4), Llama 3 8B and a small one with rules (fsdp=4,tensor=2). The regularized step is
that of a run: channels decay (`morph.Budget`), and every tenth step measures what all ten do.
Counted is such a step; the nine others have neither its sums nor its exchanges.

FLOPs are those of all devices, memory is of one: arguments and temporary arrays. The even share is
what one device alone would need, over eight; the state is weights and moments. `moved` is what
collective operations give on each device. Large transformers are compiled with one and two blocks;
what the second one added is added for every other: all blocks are alike. Numbers are of float32.
About five minutes of one core.
"""

import argparse
import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from models import ResNet, ViT
from timing import report

import morph
import regularizers as reg
from experiments.pretrained.llama import LLAMA3_8B, Llama, LlamaConfig
from morph.training.data import Batch
from morph.training.layout import Layout, mesh_named, rules_named
from morph.training.mesh import batch_axes
from morph.training.step import TrainState, make_objective, make_step

STEPS, EVERY = 1000, 10
KINDS = r"all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute"
RULES = (
    "*/query/*=fsdp:tensor,*/key/*=fsdp:tensor,*/value/*=fsdp:tensor,*/output/*=tensor:fsdp,"
    "*/gate/*=fsdp:tensor,*/up/*=fsdp:tensor,*/down/*=tensor:fsdp,*/embedding=tensor:fsdp,"
    "head/kernel=fsdp:tensor"
)
KEY = jax.random.key(0, impl="rbg")


class Case(NamedTuple):
    """A network, by its number of blocks, and where it lies."""

    build: Callable[[int], nn.Module]
    blocks: int
    mesh: str
    rules: str
    batch: Batch
    train_kwarg: str | None


def images(count: int) -> Batch:
    """So many, in shape."""
    return Batch(
        jax.ShapeDtypeStruct((count, 224, 224, 3), jnp.float32),
        jax.ShapeDtypeStruct((count,), jnp.int32),
    )


def tokens(count: int, length: int) -> Batch:
    """So many sequences, in shape."""
    ids = jax.ShapeDtypeStruct((count, length), jnp.int32)
    return Batch(ids, ids)


SMALL = LlamaConfig(
    vocabulary=512, width=512, blocks=2, heads=8, kv_heads=4, head_width=64, hidden=1536
)  # whose weights outweigh its activations


def llama(blocks: int) -> nn.Module:
    """Llama 3 8B with another number of blocks."""
    return Llama(replace(LLAMA3_8B, blocks=blocks))


CASES = {
    "ResNet-50": Case(lambda blocks: ResNet((3, 4, 6, 3)), 1, "data=8", "", images(64), "train"),
    "ViT-L/16": Case(
        lambda blocks: ViT(blocks, 1024, 16), 24, "data=2,fsdp=4", "", images(64), "train"
    ),
    "Llama 3 8B": Case(llama, 32, "fsdp=4,tensor=2", RULES, tokens(4, 2048), None),
    "small Llama": Case(
        lambda blocks: Llama(SMALL), 2, "fsdp=4,tensor=2", RULES, tokens(4, 8), None
    ),
}


def measured(case: Case, blocks: int) -> dict[str, dict[str, float]]:
    """What a plain and a regularized step of so many blocks cost."""
    network = morph.linen_network(case.build(blocks), train_kwarg=case.train_kwarg)
    one = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), case.batch
    )
    variables = jax.eval_shape(network.init, KEY, one.x)
    graph = reg.trace_channels(network.predict, variables, one.x)
    layout = Layout.of(mesh_named(case.mesh), rules_named(case.rules), variables)
    alone = Layout(mesh=Mesh(np.asarray(jax.devices()[:1]), ("data",)))
    adam = optax.adam(1e-3)
    cases = {
        "plain": (layout, adam),
        "regularized": (layout, optimizer(graph, layout, adam)),
        "one": (alone, optimizer(graph, alone, adam)),
    }
    chunk = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), case.batch
    )
    found = {}
    for name, (where, tx) in cases.items():
        like = jax.eval_shape(lambda v, tx=tx: TrainState.of(network, v, tx), variables)
        step = make_step(make_objective(), laid=where.constrained)
        there = jax.tree.map(layout_of_chunk(where), chunk)
        program = step.lower(where.abstract(like), None, there, KEY).compile()
        use, text = program.memory_analysis(), program.as_text()
        found[name] = {
            "flops": where.mesh.size * program.cost_analysis()["flops"],
            "state": use.argument_size_in_bytes,
            "bytes": use.argument_size_in_bytes + use.temp_size_in_bytes,
            **moved(text),
        }
    found["network"] = {
        "parameters": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"])),
        "channels": sum(graph.widths.values()),
    }
    return found


def optimizer(
    graph: reg.ChannelGraph, layout: Layout, own: optax.GradientTransformation
) -> optax.GradientTransformation:
    """That of a run whose channels decay."""
    regularizer = reg.NetworkRegularizer(
        graph, reg.flops(graph), threshold=0.0, relative_to="fresh", blocks=True
    ).summed(layout.sums)
    budget = morph.Budget(
        regularizer, 0.5, steps=STEPS, every=EVERY, settle=0.0, round_to=layout.round_to(graph)
    )
    return budget.optimizer(own)


def layout_of_chunk(layout: Layout) -> Callable[[Any], Any]:
    """Puts the batches of a chunk where a run has them."""
    axes = batch_axes(layout.mesh)
    place = NamedSharding(layout.mesh, PartitionSpec(None, axes))
    return lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)


def moved(text: str) -> dict[str, float]:
    """How many collective operations a program has, and how many bytes they give on a device."""
    count, size = 0, 0
    for result in re.findall(rf" = (.*?) (?:{KINDS})(?:-start)?\(", text):
        count += 1
        for kind, bits, shape in re.findall(r"([a-z]+)(\d+)\[([\d,]*)\]", result):
            numbers = math.prod(int(n) for n in shape.split(",") if n)
            size += numbers * int(bits) // 8 if kind != "pred" else numbers
    return {"collectives": count, "moved": size}


def row(name: str, case: Case) -> dict[str, Any]:
    """One network at its full depth."""
    found = measured(case, min(2, case.blocks))
    if case.blocks > 2:
        found, second = measured(case, 1), found
        found = jax.tree.map(lambda one, two: one + (case.blocks - 1) * (two - one), found, second)
    plain, regularized = found["plain"], found["regularized"]
    count = jax.device_count()
    shares = {key: count * regularized[key] / found["one"][key] for key in ("state", "bytes")}
    return {
        "network": name,
        "mesh": case.mesh,
        **found["network"],
        "gflops": plain["flops"] / 1e9,
        "gflops_added": (regularized["flops"] - plain["flops"]) / 1e9,
        "flops_ratio": regularized["flops"] / plain["flops"],
        "collectives": plain["collectives"],
        "collectives_added": regularized["collectives"] - plain["collectives"],
        "moved_mb": plain["moved"] / 1e6,
        "moved_mb_added": (regularized["moved"] - plain["moved"]) / 1e6,
        "memory_gb": plain["bytes"] / 1e9,
        "memory_gb_added": (regularized["bytes"] - plain["bytes"]) / 1e9,
        "state_over_even_share": shares["state"],
        "memory_over_even_share": shares["bytes"],
    }


def main() -> None:
    """Prints a row for every network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--out", help="write the table as JSON to this path")
    args = parser.parse_args()
    rows = [row(name, CASES[name]) for name in args.networks]
    report(rows, args.out, devices=jax.device_count(), every=EVERY)


if __name__ == "__main__":
    main()
