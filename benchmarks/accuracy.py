"""Learned structure against a uniform width multiplier, all trained for equally many steps.

    python benchmarks/accuracy.py --dataset=cifar10 --out results/accuracy-cifar10.json
    python benchmarks/accuracy.py --network=mlp --width=0.1 --steps=6000 --learning_rate=0.03

Three kinds of networks, with several random seeds:

    uniform   the seed network's widths times one number, trained from scratch;
    learned   the seed network trained a little, shrunk to the budget, and trained on as it is;
    cycles    shrunk and widened back to the seed's cost, twice, each time with its function.

All have seen `--steps` steps in the end, with one warm-up and decay of the learning rate. A learned
network's saving is what it costs less than the uniform one of the same accuracy, which is read off
the uniform curve: mean accuracy over log cost. Networks that are in --out are not trained again.
"""

import argparse
import json
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timing import report

from experiments import datasets
from experiments.models import network_of
from experiments.pictures.plots import Point, plot_tradeoff
from morph.architecture.architecture import Architecture
from morph.architecture.expand import expand
from morph.cycle.asked import configured_optimizer
from morph.cycle.config import CycleConfig
from morph.cycle.cycle import Cycle
from morph.cycle.starts import fresh
from morph.files import write_text
from morph.network import Network, Variables
from morph.settings import names_of
from morph.training.augment import augmented
from morph.training.data import (
    Batch,
    chunk_ends,
    chunks,
    resident,
)
from morph.training.evaluate import Evaluator
from morph.training.metrics import METRICS
from morph.training.optimizers import rate_schedule
from morph.training.step import TrainState, loops_well, make_objective, make_step
from morph.training.task import inputs_augmented
from regularizers.channels.trace import trace_channels
from regularizers.costs.flops import flops

LABELS = {"uniform": "uniform width", "learned": "learned", "cycles": "two cycles"}
CYCLES = 2
WATCHED = 500  # test examples that a run looks at on its way
SETTINGS = (
    "dataset", "network", "width", "penalty", "steps", "shares", "cycle_budget", "cycle_shares",
    "batch_size", "learning_rate", "optimizer", "augment",
)  # fmt: skip
VERSIONS = {name: version(name) for name in ("jax", "flax", "optax", "numpy")}
Key = tuple[str, float, int]  # kind, budget, random seed


class Study:
    """What all networks share: the data, and how they are trained."""

    def __init__(self, args: argparse.Namespace) -> None:
        data = datasets.load(args.dataset)
        self.args = args
        self.network = network_of(args.network, data, args.width)
        self.train = Batch(data.train_images, data.train_labels)
        self.test = Batch(data.test_images, data.test_labels)
        self.evaluator = Evaluator(self.test, {"accuracy": METRICS["accuracy"]})
        self.x = jnp.asarray(data.test_images[:1])
        variables = jax.eval_shape(self.network.init, jax.random.key(0), self.x)
        self.graph = trace_channels(self.network.predict, variables, self.x)
        self.cost = flops(self.graph)
        self.config = CycleConfig(
            schedule="run",
            final="finetune",
            expand="warm",
            penalty=args.penalty,
            optimizer=args.optimizer,
            learning_rate=args.learning_rate,
            batch_size=args.batch_size,
            augment=args.augment,
        )

    def row(self, kind: str, budget: float, seed: int) -> dict[str, Any]:
        """Trains a network, and tells what came out."""
        started = time.monotonic()
        train = {"uniform": self.uniform, "learned": self.learned, "cycles": self.cycles}[kind]
        network, variables, architecture, flops = train(budget, replace(self.config, seed=seed))
        return {
            "kind": kind,
            "budget": budget,
            "seed": seed,
            "accuracy": self.evaluator.measure(jax.jit(network.predict), variables)["accuracy"],
            "flops": flops,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
            "seconds": time.monotonic() - started,
            "widths": architecture.widths,
            "removed": {block.name: block.kind for block in architecture.removed},
        }

    def uniform(
        self, budget: float, config: CycleConfig
    ) -> tuple[Network, Variables, Architecture, float]:
        """The network of one width multiplier, trained from scratch as a cycle's first phase is."""
        architecture = expand(Architecture.of_seed(self.graph), self.cost, budget * self.cost())
        network, steps = self.network.resized(architecture), self.args.steps
        key = jax.random.key(config.seed, impl="rbg")
        tx = configured_optimizer(rate_schedule(config.learning_rate, steps), config)
        state = TrainState.of(network, fresh(network, key, self.x), tx)
        data, names = resident(self.train), names_of(config.augment)
        augment = inputs_augmented(augmented(names)) if names else None
        step = make_step(make_objective(augment=augment), looped=loops_well(self.graph))
        ends = chunk_ends(0, steps, 10)
        for chunk in chunks(self.train, config.batch_size, ends, start=0, seed=config.seed):
            state, _ = step(state, data, chunk, key)
        return network, state.variables, architecture, float(self.cost(architecture.widths))

    def learned(
        self, budget: float, config: CycleConfig
    ) -> tuple[Network, Variables, Architecture, float]:
        """Shrunk to the budget once."""
        return self._cycle(replace(config, budget=budget), self.args.shares, 1)

    def cycles(
        self, budget: float, config: CycleConfig
    ) -> tuple[Network, Variables, Architecture, float]:
        """Shrunk and expanded to the budget, several times."""
        own = replace(config, shrink_to=self.args.cycle_budget, budget=budget, cycles=CYCLES)
        return self._cycle(own, self.args.cycle_shares, CYCLES)

    def _cycle(
        self, config: CycleConfig, shares: Sequence[float], cycles: int
    ) -> tuple[Network, Variables, Architecture, float]:
        seed, shrink, _ = (round(self.args.steps * share) for share in shares)
        each = (self.args.steps - seed) // cycles
        own = replace(
            config,
            seed_steps=self.args.steps - each * cycles,
            shrink_steps=shrink // cycles,
            retrain_steps=each - shrink // cycles,
        )
        with tempfile.TemporaryDirectory() as workdir:
            result = Cycle(
                network=self.network,
                train=self.train,
                test=self.watched,
                config=own,
                workdir=Path(workdir),
            ).run()
        last = result.outcomes[-1]
        assert last.steps == self.args.steps
        return result.network, result.variables, result.architecture, last.flops

    @property
    def watched(self) -> Batch:
        """Enough of the test set to see how it goes."""
        return Batch(*(part[:WATCHED] for part in self.test))


def summary(rows: Sequence[Mapping[str, Any]], seed_flops: float) -> list[dict[str, Any]]:
    """Per kind and budget: mean accuracy and its spread over seeds, and what is saved."""
    found: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["kind"], row["budget"]), []).append(row)
    points = []
    for (kind, budget), own in found.items():
        accuracies = [row["accuracy"] for row in own]
        points.append(
            {
                "kind": kind,
                "budget": budget,
                "runs": len(own),
                "flops": statistics.mean(row["flops"] for row in own) / seed_flops,
                "accuracy": statistics.mean(accuracies),
                "spread": statistics.stdev(accuracies) if len(own) > 1 else 0.0,
            }
        )
    points.sort(key=lambda point: (list(LABELS).index(point["kind"]), -point["flops"]))
    curve = [point for point in points if point["kind"] == "uniform"]
    return [{**point, **_saving(point, curve)} for point in points]


def _saving(point: Mapping[str, Any], curve: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a point costs less than the uniform curve at its accuracy.

    It is `beyond` the curve where that is all better or all worse: then the saving is a
    bound. Where the curve is not monotonous, each of its
    networks counts as good as the best that costs no more.
    """
    if not curve:
        return {}
    known = sorted(curve, key=lambda each: each["flops"])
    costs = np.log([each["flops"] for each in known])
    best = np.maximum.accumulate([each["accuracy"] for each in known])
    equal = float(np.exp(np.interp(point["accuracy"], best, costs)))
    return {
        "gain": point["accuracy"] - float(np.interp(np.log(point["flops"]), costs, best)),
        "saving": 1.0 - point["flops"] / equal,
        "beyond": bool(not best[0] <= point["accuracy"] <= best[-1]),
    }


def figure(points: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Accuracy against FLOPs."""
    drawn = [
        Point(
            series=LABELS[point["kind"]],
            label="",
            cost=point["flops"],
            accuracy=point["accuracy"],
            spread=point["spread"],
            runs=point["runs"],
        )
        for point in points
    ]
    plot_tradeoff(drawn, path, cost="FLOPs", title=title)


def main() -> None:
    """Trains what is missing, prints the table, and draws it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="fashion_mnist")
    parser.add_argument("--network", default="cnn")
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--uniform", type=float, nargs="*", default=[1.5, 1.0, 0.75, 0.5, 0.25])
    parser.add_argument("--learned", type=float, nargs="*", default=[0.75, 0.5, 0.25])
    parser.add_argument("--cycles", type=float, nargs="*", default=[1.0])
    parser.add_argument("--cycle_budget", type=float, default=0.75, help="that cycles shrink to")
    parser.add_argument("--steps", type=int, default=1000, help="of every network, in all")
    parser.add_argument(
        "--shares", type=float, nargs=3, default=[0.2, 0.4, 0.4], help="seed, shrink, train on"
    )
    parser.add_argument(
        "--cycle_shares", type=float, nargs=3, default=[0.05, 0.15, 0.8], help="of all cycles"
    )
    parser.add_argument("--penalty", default="gamma")
    parser.add_argument("--optimizer", default="momentum")
    parser.add_argument("--learning_rate", type=float, default=0.1)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--augment", default="")
    parser.add_argument("--out", help="write the table as JSON to this path")
    parser.add_argument("--figure", type=Path, help="draw it to this path")
    args = parser.parse_args()
    settings = {name: getattr(args, name) for name in SETTINGS}
    keys: list[Key] = [
        (kind, budget, seed)
        for seed in args.seeds
        for kind in LABELS
        for budget in getattr(args, kind)
    ]
    rows: list[dict[str, Any]] = []
    if args.out and Path(args.out).exists():
        there = json.loads(Path(args.out).read_text())
        if there["settings"] != settings:
            raise SystemExit(f"{args.out} is of other settings: {there['settings']}")
        rows = there["rows"]
    known = {(row["kind"], row["budget"], row["seed"]) for row in rows}
    study = Study(args)
    seed_flops = float(study.cost())
    command = shlex.join(["python", *sys.argv])
    for key in keys:
        if key in known:
            continue
        rows.append(row := study.row(*key))
        shown = {name: row[name] for name in ("accuracy", "seconds", "removed")}
        print(*key, round(row["flops"] / seed_flops, 4), shown, list(row["widths"].values()))
        sys.stdout.flush()
        if args.out:
            found = {"command": command, "settings": settings, "seed_flops": seed_flops}
            found |= {"device": jax.devices()[0].device_kind, "versions": VERSIONS}
            found |= {"summary": summary(rows, seed_flops), "rows": rows}
            write_text(Path(args.out), json.dumps(found, indent=2) + "\n")
    points = summary(rows, seed_flops)
    report(points, None)
    if args.figure:
        figure(points, args.figure, f"{args.dataset}, {args.network}, {args.steps} steps")


if __name__ == "__main__":
    main()
