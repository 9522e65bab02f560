"""Runs of models that are divided over eight devices, and over one; prints one JSON object.

`tests/morph/training/test_layout.py` runs it, with
XLA_FLAGS=--xla_force_host_platform_device_count=8, which JAX has to see before it starts.
"""

import json
import sys
import tempfile
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

import morph
from morph.cycle.config import CycleConfig
from morph.cycle.cycle import Cycle
from morph.cycle.listener import Silence
from morph.training.data import Batch

RNG = np.random.default_rng(0)
STEPS = {"seed_steps": 4, "shrink_steps": 8, "retrain_steps": 2}


class ResNet(nn.Module):
    """A stem and two residual blocks, the second strided."""

    @nn.compact
    def __call__(self, x, train=False):
        """Returns logits."""

        def layer(x, width, strides=1):
            x = nn.Conv(width, (3, 3), strides=strides, use_bias=False)(x)
            return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)

        x = nn.relu(layer(x, 6))
        x = nn.relu(x + layer(nn.relu(layer(x, 5)), 6))
        y = layer(nn.relu(layer(x, 9, 2)), 7)
        x = nn.relu(y + layer(x, 7, 2))
        return nn.Dense(3)(x.mean((1, 2)))


class ViT(nn.Module):
    """Patches, a pre-norm block; it says itself how some of its kernels are divided."""

    @nn.compact
    def __call__(self, x):
        """Returns logits."""
        by_hand = nn.with_partitioning(nn.initializers.lecun_normal(), (None, "fsdp"))
        x = nn.Conv(16, (2, 2), strides=2, name="patches")(x)
        x = x.reshape(x.shape[0], -1, 16)
        y = nn.LayerNorm()(x)
        x += nn.MultiHeadDotProductAttention(num_heads=4, qkv_features=16, name="attention")(y)
        y = nn.Dense(36, name="up", kernel_init=by_hand)(nn.LayerNorm()(x))
        x += nn.Dense(16, name="down")(nn.gelu(y))
        return nn.Dense(3, name="head")(x.mean(1))


class Llama(nn.Module):
    """Embedding, pre-norm blocks of causal attention and a gated MLP, a head."""

    width: int = 24
    hidden: int = 48
    blocks: int = 1
    vocabulary: int = 16

    @nn.compact
    def __call__(self, ids):
        """Returns the logits of every next token."""
        dense = partial(nn.Dense, use_bias=False)
        x = nn.Embed(self.vocabulary, self.width, name="embed")(ids)
        for i in range(self.blocks):
            y = nn.RMSNorm(name=f"norm_{i}")(x)
            q, k, v = (
                nn.DenseGeneral((4, self.width // 4), use_bias=False, name=f"{n}_{i}")(y)
                for n in ("q", "k", "v")
            )
            mask = nn.make_causal_mask(ids)
            y = nn.dot_product_attention(q, k, v, mask=mask).reshape(x.shape)
            x += dense(self.width, name=f"o_{i}")(y)
            y = nn.RMSNorm(name=f"mlp_norm_{i}")(x)
            y = nn.silu(dense(self.hidden, name=f"gate_{i}")(y)) * dense(
                self.hidden, name=f"up_{i}"
            )(y)
            x += dense(self.width, name=f"down_{i}")(y)
        return dense(self.vocabulary, name="head")(nn.RMSNorm(name="last")(x))


LLAMA_RULES = (
    "q_*=fsdp:tensor:-,k_*=fsdp:tensor:-,v_*=fsdp:tensor:-,o_*=tensor:fsdp,"
    "gate_*=fsdp:tensor,up_*=fsdp:tensor,down_*=tensor:fsdp,embed=tensor:fsdp,head=fsdp:tensor"
)


def images(count):
    """Labelled noise, with the label in its first channel."""
    y = RNG.integers(0, 3, count).astype(np.int32)
    x = RNG.normal(size=(count, 8, 8, 2)).astype(np.float32)
    x[np.arange(count), :, :, 0] += 2.0 * y[:, None, None]
    return Batch(x, y)


def tokens(count):
    """Sequences that go on by one or two."""
    ids = RNG.integers(0, 16, (count, 1)) + np.arange(7) * RNG.integers(1, 3, (count, 1))
    return Batch((ids[:, :-1] % 16).astype(np.int32), (ids[:, 1:] % 16).astype(np.int32))


CASES = {
    "resnet": (ResNet(), "train", images, {"mesh": "data=8"}, 0.1),
    "vit": (ViT(), None, images, {"mesh": "data=2,fsdp=4"}, 0.1),
    "llama": (Llama(), None, tokens, {"mesh": "fsdp=4,tensor=2", "shard": LLAMA_RULES}, 0.3),
}


def cycle(case, workdir, **places):
    """The run of a case, somewhere."""
    module, train_kwarg, make, where, rate = CASES[case]
    data = DATA.setdefault(make.__name__, (make(64), make(40)))
    return Cycle(
        network=morph.linen_network(module, train_kwarg=train_kwarg),
        train=data[0],
        test=data[1],
        config=CycleConfig(batch_size=16, learning_rate=rate, round_to=4, **STEPS),
        workdir=Path(workdir),
        look_every=2,
        listener=Silence(),
        **{**where, **places},
    )


DATA = {}
ONE = {"mesh": Mesh(np.asarray(jax.devices()[:1]), ("data",)), "shard": ""}


def both(case, root):
    """A case on one device, and divided."""
    found = {}
    for name, places in {"one": ONE, "many": {}}.items():
        workdir = root / case / name
        result = cycle(case, workdir, **places).run()
        records = [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
        found[name] = {
            "losses": [record["loss"] for record in records],
            "groups": {n: list(map(int, g.parents)) for n, g in result.architecture.groups.items()},
            "metrics": [outcome.metrics for outcome in result.outcomes],
        }
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps({case: both(case, Path(scratch)) for case in sys.argv[1:] or CASES}))
