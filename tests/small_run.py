"""A small run for the tests of recovery and scale; as a script one process of many:

small_run.py WORKDIR COORDINATOR PROCESS PROCESSES MESH
"""

import itertools
import json
import os
import signal
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

import morph
from morph.cycle.config import CycleConfig
from morph.cycle.cycle import Cycle
from morph.errors import Interrupted
from morph.training.evaluate import Evaluator
from morph.training.layout import Layout
from morph.training.mesh import connect, data_mesh
from morph.training.metrics import METRICS
from morph.training.step import Batch

CONFIG = CycleConfig(
    budget=0.8,
    shrink_to=0.5,
    final="scratch",
    seed_steps=20,
    shrink_steps=40,
    retrain_steps=30,
    batch_size=32,
    learning_rate=0.05,
)
STOPS = ("shrink", 30), ("retrain", 0)
SHARD = "Dense_0/kernel=-:fsdp,BatchNorm_0=fsdp,Dense_1/kernel=fsdp:-"


class Net(nn.Module):
    """A dense net with batch norm and dropout, whose statistics and masks devices must share."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(24, use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return nn.Dense(3)(nn.Dropout(0.1, deterministic=not train)(x))


@contextmanager
def compiled_once(directory):
    """Keeps compiled programs in a directory, for runs that repeat each other."""
    kept = {
        "jax_enable_compilation_cache": True,
        "jax_compilation_cache_dir": str(directory),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in kept}
    for name, value in kept.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


@dataclass(frozen=True)
class Rows:
    """Batches of a set, of which every process reads its own part."""

    whole: Batch

    def batches(self, start):
        return self.parts(start, 0, 1)

    def parts(self, start, part, parts):
        assert (part, parts) in {(0, 1), (jax.process_index(), jax.process_count())}
        for number in itertools.count(start):
            rows = np.random.default_rng(number).permutation(self.whole.examples)[:32]
            yield self.whole.rows(np.split(rows, parts)[part])


def make(workdir, cycle=Cycle, mesh=None):
    """The run; on a mesh in widths that four can divide, and of batches that four can read."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 310).astype(np.int32)
    x = rng.normal(size=(310, 7)).astype(np.float32)
    x[np.arange(310), y] += 3.0
    train = Batch(x[:200], y[:200])
    return cycle(
        network=morph.linen_network(Net()),
        train=Rows(train) if mesh else train,
        test=Batch(x[200:], y[200:]),
        config=replace(CONFIG, round_to=4) if mesh else CONFIG,
        workdir=Path(workdir),
        mesh=mesh,
        shard=SHARD if mesh == "fsdp=4" else "",
    )


@dataclass
class Numbered:
    """Test batches of growing sizes; remembers the numbers of those that were read."""

    read: list[int]

    def __len__(self):
        return 5

    def __iter__(self):
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, number):
        self.read.append(number)
        x = np.random.default_rng(number).normal(size=(3 * number + 1, 7)).astype(np.float32)
        return x, (x.sum(-1) > 0.0).astype(np.int32)


def measured():
    """What an indexed test set comes to on all devices, and on this process which were read."""
    test, weights = Numbered([]), np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    layout = Layout(mesh=data_mesh())
    metrics = {name: METRICS[name] for name in ("accuracy", "log_likelihood")}
    evaluator = Evaluator(test, metrics, layout=layout, decide=lambda logits: logits.argmax(-1))
    networks = [(lambda v, x: x @ v, layout.whole(one)) for one in (weights, 1.01 * weights)]
    found, apart = evaluator.compare(*networks)
    return {**found, **apart._asdict()}, test.read


@dataclass(frozen=True)
class Stopping:
    """A phase in which one process, not the first if there are others, is asked to stop."""

    phase: Any

    @property
    def stretch(self):
        return self.phase.stretch

    def prepare(self, run, carried, variables):
        return self.phase.prepare(run, carried, variables)

    def train(self, run, work, start):
        for step in self.phase.train(run, work, start):
            here = (self.stretch.name, step) == STOPS[jax.process_count() > 1]
            if here and jax.process_index() == min(1, jax.process_count() - 1):
                os.kill(os.getpid(), signal.SIGTERM)
            yield step

    def finish(self, run, work, carried):
        return self.phase.finish(run, work, carried)


class Stopped(Cycle):
    """A run of such phases."""

    @property
    def phases(self):
        return tuple(map(Stopping, super().phases))


def main():
    """Runs it until it is stopped."""
    workdir, coordinator, process, count, mesh = sys.argv[1:]
    connect(coordinator, int(process), int(count), timeout_s=120)
    found = measured()
    try:
        make(workdir, Stopped, mesh).run()
    except Interrupted as stop:
        print(json.dumps(found), f"{stop} on {jax.device_count()} devices", sep="\n", flush=True)


if __name__ == "__main__":
    main()
