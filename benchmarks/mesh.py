"""Runs that eight devices share, against one device: the same losses, the same structure.

    export XLA_FLAGS=--xla_force_host_platform_device_count=8
    python benchmarks/mesh.py --out results/mesh.json

A ResNet with its batches divided (data=8), a ViT with its variables divided, too, as it says itself
(data=2,fsdp=4), and a decoder as Llama's with rules (fsdp=4,tensor=2): each is trained, cut and
retrained by `morph.Cycle`. About a minute of one core for each.
"""

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh
from timing import report

import morph
from morph.cycle.config import CycleConfig
from morph.cycle.cycle import Cycle
from morph.cycle.listener import Silence
from morph.training.data import Batch

STEPS = {"seed_steps": 4, "shrink_steps": 8, "retrain_steps": 2}


class ResNet(nn.Module):
    """A stem and two residual blocks, the second strided."""

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        """Logits of images."""

        def layer(x: Any, width: int, strides: int = 1) -> Any:
            x = nn.Conv(width, (3, 3), strides=strides, use_bias=False)(x)
            return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)

        x = nn.relu(layer(x, 6))
        x = nn.relu(x + layer(nn.relu(layer(x, 5)), 6))
        y = layer(nn.relu(layer(x, 9, 2)), 7)
        x = nn.relu(y + layer(x, 7, 2))
        return nn.Dense(3)(x.mean((1, 2)))


class ViT(nn.Module):
    """Patches and a pre-norm block, one kernel of which says itself how it is divided."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Logits of images."""
        divided = nn.with_partitioning(nn.initializers.lecun_normal(), (None, "fsdp"))
        x = nn.Conv(16, (2, 2), strides=2, name="patches")(x)
        x = x.reshape(x.shape[0], -1, 16)
        y = nn.LayerNorm()(x)
        x += nn.MultiHeadDotProductAttention(num_heads=4, qkv_features=16, name="attention")(y)
        y = nn.Dense(36, name="up", kernel_init=divided)(nn.LayerNorm()(x))
        x += nn.Dense(16, name="down")(nn.gelu(y))
        return nn.Dense(3, name="head")(x.mean(1))


class Llama(nn.Module):
    """An embedding, pre-norm blocks of causal attention and a gated MLP, a head."""

    width: int = 24
    hidden: int = 48
    blocks: int = 1
    vocabulary: int = 16

    @nn.compact
    def __call__(self, ids: Any) -> Any:
        """Logits of the next tokens."""
        dense = partial(nn.DenseGeneral, use_bias=False)
        x = nn.Embed(self.vocabulary, self.width, name="embed")(ids)
        for i in range(self.blocks):
            y = nn.RMSNorm(name=f"norm_{i}")(x)
            q, k, v = (dense((4, self.width // 4), name=f"{n}_{i}")(y) for n in "qkv")
            y = nn.dot_product_attention(q, k, v, mask=nn.make_causal_mask(ids))
            x += dense(self.width, name=f"o_{i}")(y.reshape(x.shape))
            y = nn.RMSNorm(name=f"mlp_norm_{i}")(x)
            gate, up = (dense(self.hidden, name=f"{n}_{i}")(y) for n in ("gate", "up"))
            x += dense(self.width, name=f"down_{i}")(nn.silu(gate) * up)
        return dense(self.vocabulary, name="head")(nn.RMSNorm(name="last")(x))


RULES = (
    "q_*=fsdp:tensor:-,k_*=fsdp:tensor:-,v_*=fsdp:tensor:-,o_*=tensor:fsdp,"
    "gate_*=fsdp:tensor,up_*=fsdp:tensor,down_*=tensor:fsdp,embed=tensor:fsdp,head=fsdp:tensor"
)


def images(count: int) -> Batch:
    """Noise, brighter for higher classes."""
    rng = np.random.default_rng(count)
    y = rng.integers(0, 3, count).astype(np.int32)
    x = rng.normal(size=(count, 8, 8, 2)).astype(np.float32)
    x[np.arange(count), :, :, 0] += 2.0 * y[:, None, None]
    return Batch(x, y)


def tokens(count: int) -> Batch:
    """Sequences that count up in ones or twos."""
    rng = np.random.default_rng(count)
    ids = rng.integers(0, 16, (count, 1)) + np.arange(7) * rng.integers(1, 3, (count, 1))
    return Batch((ids[:, :-1] % 16).astype(np.int32), (ids[:, 1:] % 16).astype(np.int32))


CASES: dict[str, tuple[Any, str | None, Any, dict[str, str], float]] = {
    "resnet": (ResNet(), "train", images, {"mesh": "data=8"}, 0.1),
    "vit": (ViT(), None, images, {"mesh": "data=2,fsdp=4"}, 0.1),
    "llama": (Llama(), None, tokens, {"mesh": "fsdp=4,tensor=2", "shard": RULES}, 0.3),
}


def run(case: str, workdir: Path, **places: Any) -> dict[str, Any]:
    """The losses and the structure of a case, somewhere."""
    module, train_kwarg, make, where, rate = CASES[case]
    result = Cycle(
        network=morph.linen_network(module, train_kwarg=train_kwarg),
        train=make(64),
        test=make(40),
        config=CycleConfig(batch_size=16, learning_rate=rate, round_to=4, **STEPS),
        workdir=workdir,
        look_every=2,
        listener=Silence(),
        **{**where, **places},
    ).run()
    with (workdir / "metrics.jsonl").open() as lines:
        records = [json.loads(line) for line in lines]
    losses = [record["loss"] for record in records]
    whole = [record.get("cost_ratio", 1.0) == 1.0 for record in records]
    groups = result.architecture.groups.items()
    return {
        "losses": losses,
        "before": [*whole, False].index(False),
        "kept": {name: list(g.parents) for name, g in groups},
    }


def main() -> None:
    """Prints a row for every case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--out", help="write the table as JSON to this path")
    args = parser.parse_args()
    one = Mesh(np.asarray(jax.devices()[:1]), ("data",))
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for case in args.cases:
            alone = run(case, Path(scratch, case, "one"), mesh=one, shard="")
            shared = run(case, Path(scratch, case, "eight"))
            apart = np.abs(np.divide(shared["losses"], alone["losses"]) - 1.0)
            widths = {name: len(kept) for name, kept in shared["kept"].items()}
            rows.append(
                {
                    "case": case,
                    "mesh": CASES[case][3]["mesh"],
                    "difference_before_the_cut": float(apart[: alone["before"]].max()),
                    "largest_relative_difference": float(apart.max()),
                    "same_structure": shared["kept"] == alone["kept"],
                    "widths": widths,
                }
            )
    report(rows, args.out)


if __name__ == "__main__":
    main()
