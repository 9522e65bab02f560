"""Contestants of the arena in JAX: the seed network, uniform multipliers, and Morph."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from arena_rows import BATCH, HELD_OUT, WEIGHT_DECAY, Row

import morph
import regularizers as reg
from experiments import datasets
from experiments.networks.inception import Inception
from experiments.networks.layers import BATCH_NORM_MOMENTUM
from experiments.networks.mlp import MLP
from experiments.networks.resnet import ResNet
from experiments.networks.vit import ViT
from morph.architecture.architecture import Architecture
from morph.architecture.expand import expand
from morph.cycle.config import CycleConfig
from morph.cycle.cycle import Cycle
from morph.cycle.starts import fresh
from morph.training.data import Batch, chunk_ends, chunks, resident
from morph.training.losses import cross_entropy
from morph.training.optimizers import make_optimizer, rate_schedule
from morph.training.step import TrainState, loops_well, make_step

CALIBRATION = 512  # training examples that a one-shot cut is decided on
SEEN = 0.4  # the share of the steps before a one-shot cut
# Those of the settings' defaults.
SHARES = {"seed_steps": 0.2, "shrink_steps": 0.3, "retrain_steps": 0.5}


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1; a shortcut where the shape stays."""

    features: int
    stride: int
    expansion: int = 4

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns activations, or logits at the end."""

        def norm(y: jax.Array) -> jax.Array:
            return nn.BatchNorm(use_running_average=not train, momentum=BATCH_NORM_MOMENTUM)(y)

        wide = self.expansion * x.shape[-1]
        y = nn.relu(norm(nn.Conv(wide, (1, 1), use_bias=False)(x)))
        y = nn.Conv(wide, (3, 3), self.stride, feature_group_count=wide, use_bias=False)(y)
        y = norm(nn.Conv(self.features, (1, 1), use_bias=False)(nn.relu(norm(y))))
        return x + y if x.shape == y.shape else y


class MobileNet(nn.Module):
    """A MobileNetV2 (Sandler et al. 2018) of three stages of two blocks."""

    num_classes: int = 10

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Returns activations, or logits at the end."""
        x = nn.Conv(16, (3, 3), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(not train, momentum=BATCH_NORM_MOMENTUM)(x))
        for features, stride in ((16, 1), (24, 2), (32, 2)):
            x = InvertedResidual(features, stride)(x, train)
            x = InvertedResidual(features, 1)(x, train)
        x = nn.Conv(128, (1, 1), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(not train, momentum=BATCH_NORM_MOMENTUM)(x))
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "resnet8": lambda: ResNet(10, depth=8),
    "resnet20": lambda: ResNet(10, depth=20),
    "mobilenet": MobileNet,
    "inception": lambda: Inception(10),
    "vit": lambda: ViT(10),
    "mlp": lambda: MLP(10),
}


@functools.cache
def sets(dataset: str, pool: int) -> dict[str, Batch]:
    """Training, held-out and test examples."""
    data = datasets.load(dataset)

    def pooled(images: Any) -> Any:
        n, h, w, c = images.shape
        cut = np.asarray(images).reshape(n, h // pool, pool, w // pool, pool, c)
        return np.ascontiguousarray(cut.mean((2, 4)), dtype=np.float32)

    x, y = pooled(data.train_images), np.asarray(data.train_labels)
    return {
        "train": Batch(x[:-HELD_OUT], y[:-HELD_OUT]),
        "held out": Batch(x[-HELD_OUT:], y[-HELD_OUT:]),
        "test": Batch(pooled(data.test_images), np.asarray(data.test_labels)),
    }


class Contest:
    """One row of the arena: data, seed network and training."""

    def __init__(self, row: Row) -> None:
        self.row, self.sets = row, sets(row.dataset, row.pool)
        self.network = morph.linen_network(NETWORKS[row.network]())
        self.x = jnp.asarray(self.sets["train"].x[:1])
        variables = jax.eval_shape(self.network.init, jax.random.key(0), self.x)
        self.graph = reg.trace_channels(self.network.predict, variables, self.x)
        self.cost = reg.flops(self.graph)
        self.whole = Architecture.of_seed(self.graph)
        self.step = make_step(looped=loops_well(self.graph))
        self.resident = resident(self.sets["train"])

    def run(self, mode: str, budget: float, seed: int, widths: Mapping[str, Any]) -> dict[str, Any]:
        """Trains one contestant, and tells what came out.

        Args:
            mode: of `MODES`; or `MODE, scratch`: its widths, trained from scratch.
            budget: the share of the seed's FLOPs.
            seed: of everything random.
            widths: architectures that other contestants found, as JSON, by mode.
        """
        started = time.monotonic()
        if mode.endswith(", scratch"):
            found = Architecture.from_json(widths[mode.removesuffix(", scratch")])
            architecture, variables = found, self.trained(found, seed)
        else:
            architecture, variables = MODES[mode](self, budget, seed)
        network = self.network.resized(architecture)
        graph = reg.trace_channels(network.predict, variables, self.x)
        return {
            **self.scores(network, variables),
            "flops": float(reg.flops(graph)()) / float(self.cost()),
            "widths": architecture.widths,
            "removed": [block.name for block in architecture.removed],
            "architecture": architecture.to_json() if mode in MODES else None,
            "seconds": time.monotonic() - started,
        }

    def scores(self, network: Any, variables: Any) -> dict[str, float]:
        """The share of right answers on held-out and on test examples."""
        predict = jax.jit(network.predict)

        def right(data: Batch) -> float:
            at = range(0, len(data.y), 1000)
            told = [np.asarray(predict(variables, data.x[i : i + 1000])).argmax(-1) for i in at]
            return float((np.concatenate(told) == data.y).mean())

        return {"held_out": right(self.sets["held out"]), "test": right(self.sets["test"])}

    def optimizer(self, start: int = 0) -> Any:
        """The row's, from a step of its schedule on."""
        rate = rate_schedule(self.row.learning_rate, self.row.steps, start=start)
        return make_optimizer(self.row.optimizer, rate, weight_decay=WEIGHT_DECAY)

    def train(self, state: TrainState, start: int, end: int, seed: int) -> TrainState:
        """From a step of the schedule to another."""
        key = jax.random.key(seed, impl="rbg")
        ends = chunk_ends(start, end, 20)
        for chunk in chunks(self.sets["train"], BATCH, ends, start=start, seed=seed):
            state, _ = self.step(state, self.resident, chunk, key)
        return state

    def trained(self, architecture: Architecture, seed: int) -> Any:
        """A network trained from scratch."""
        network = self.network.resized(architecture)
        drawn = fresh(network, jax.random.key(seed, impl="rbg"), self.x)
        state = TrainState.of(network, drawn, self.optimizer())
        return self.train(state, 0, self.row.steps, seed).variables

    def loss(self, variables: Any, batch: Batch) -> jax.Array:
        """Of a batch, with the statistics of that batch."""
        outputs, _ = self.network.forward(variables, batch.x, jax.random.key(0))
        return cross_entropy(outputs, batch.y)

    def calibration(self, seed: int) -> list[Batch]:
        """What a one-shot cut is decided on."""
        chosen = np.random.default_rng(seed).permutation(len(self.sets["train"].y))[:CALIBRATION]
        at = np.split(chosen, CALIBRATION // BATCH)
        return [Batch(*(jnp.asarray(part[i]) for part in self.sets["train"][:2])) for i in at]


Outcome = tuple[Architecture, Any]


def seed_network(contest: Contest, budget: float, seed: int) -> Outcome:
    """The seed network."""
    assert budget == 1.0
    return contest.whole, contest.trained(contest.whole, seed)


def uniform(contest: Contest, budget: float, seed: int) -> Outcome:
    """One width multiplier."""
    found = expand(contest.whole, contest.cost, budget * float(contest.cost()))
    return found, contest.trained(found, seed)


def spared(contest: Contest, budget: float, seed: int) -> Outcome:
    """One width multiplier for all but what the first layer gives and the last one takes."""
    graph, cost = contest.graph, contest.cost
    first, last = graph.operations[0].kernel, graph.operations[-1].kernel
    kept = {
        name
        for name, group in graph.groups.items()
        if any((m.path == first and m.produces) for m in group.members)
        or any((m.path == last and m.consumes) for m in group.members)
    }

    def at(multiplier: float) -> dict[str, int]:
        return {
            name: width if name in kept else max(1, round(multiplier * width))
            for name, width in graph.widths.items()
        }

    multipliers = np.linspace(1.0, 0.0, 2001)
    fits = (at(m) for m in multipliers if float(cost(at(m))) <= budget * float(cost()))
    widths = next(fits)
    keep = {name: np.arange(graph.widths[name]) < width for name, width in widths.items()}
    found = morph.shrink(graph, keep)
    return found, contest.trained(found, seed)


def cycle(contest: Contest, budget: float, seed: int, **settings: Any) -> Outcome:
    """A run of Morph; all settings but those of the row are the defaults."""
    row = contest.row
    steps = {name: round(share * row.steps) for name, share in SHARES.items()}
    steps["retrain_steps"] = row.steps - steps["seed_steps"] - steps["shrink_steps"]
    config = CycleConfig(
        budget=budget,
        batch_size=BATCH,
        optimizer=row.optimizer,
        learning_rate=row.learning_rate,
        weight_decay=WEIGHT_DECAY,
        seed=seed,
        **{**steps, **settings},
    )
    watched = Batch(*(part[:500] for part in contest.sets["held out"][:2]))
    with tempfile.TemporaryDirectory() as workdir:
        result = Cycle(
            network=contest.network,
            train=contest.sets["train"],
            test=watched,
            config=config,
            workdir=Path(workdir),
            checkpoint_seconds=None,
        ).run()
    assert result.outcomes[-1].steps == row.steps, asdict(result.outcomes[-1])
    return result.architecture, result.variables


def one_shot(contest: Contest, budget: float, seed: int, **settings: Any) -> Outcome:
    """`morph.prune` once, trained on with the optimizer's state sliced."""
    at = round(SEEN * contest.row.steps)
    drawn = fresh(contest.network, jax.random.key(seed, impl="rbg"), contest.x)
    state = TrainState.of(contest.network, drawn, contest.optimizer())
    state = contest.train(state, 0, at, seed)
    found = morph.prune(
        contest.graph,
        state.variables,
        contest.cost,
        budget,
        loss=contest.loss,
        batches=contest.calibration(seed),
        **settings,
    )
    small = TrainState.of(
        contest.network.resized(found), found.take(state.variables), contest.optimizer(at)
    )
    return found, contest.train(small, at, contest.row.steps, seed).variables


MODES: Mapping[str, Callable[[Contest, float, int], Outcome]] = {
    "seed": seed_network,
    "uniform": uniform,
    "uniform, spared ends": spared,
    "morph": cycle,
    "morph, group_lasso": functools.partial(cycle, penalty="group_lasso"),
    "morph, no blocks": functools.partial(cycle, blocks=False),
    "morph, distilled": functools.partial(cycle, distill=0.5),
    "morph.prune": one_shot,
    "morph.prune, scores": functools.partial(one_shot, by="scores"),
}
