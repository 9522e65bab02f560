"""Shrink, tensorize, or both: accuracy against FLOPs and parameters on Fashion-MNIST.

    python benchmarks/tensorize_shrink.py --steps 600 --out results/tensorize_shrink.json

Every run trains the CNN as long in all, and ends at the same share of its FLOPs: by removing
channels alone, by factorizing alone (`auto`: Tucker-2 and SVD), or by removing channels to the root
of the share and factorizing the rest of the way. `--plot` draws it.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt

from experiments import datasets
from experiments.models import network_of
from experiments.networks import SEED_NETWORKS
from morph.cycle.config import CycleConfig
from morph.cycle.cycle import Cycle
from morph.files import write_text
from morph.training.data import Batch

METHODS = ("shrink", "tensorize", "both")
SHARES = (0.3, 0.15)  # of the seed's FLOPs; 0.145 are the least that tensorizing alone reaches
TICKS = {"flops": (15, 20, 25, 30), "parameters": (2.5, 5, 10, 20, 40)}  # %
SHARE_OF_STEPS = {"seed": 0.3, "shrink": 0.3, "retrain": 0.1, "tensorize": 0.3}


def config_of(method: str, share: float, steps: int, seed: int) -> CycleConfig:
    """A run of `steps` steps in all."""
    parts = {name: round(own * steps) for name, own in SHARE_OF_STEPS.items()}
    tensorized = method != "shrink"
    return CycleConfig(
        budget={"shrink": share, "tensorize": 1.0, "both": share**0.5}[method],
        seed_steps=parts["seed"],
        shrink_steps=parts["shrink"],
        retrain_steps=parts["retrain"] + (0 if tensorized else parts["tensorize"]),
        tensorize="auto" if tensorized else "",
        tensorize_budget=share if tensorized else 0.25,
        tensorize_steps=parts["tensorize"],
        seed=seed,
    )


def learn(network: Any, data: Any, config: CycleConfig) -> list[Any]:
    """What a run measured."""
    with tempfile.TemporaryDirectory() as workdir:
        return list(
            Cycle(
                network=network,
                train=Batch(data.train_images, data.train_labels),
                test=Batch(data.test_images, data.test_labels),
                config=config,
                workdir=Path(workdir),
            )
            .run()
            .outcomes
        )


def draw(rows: list[dict[str, Any]], path: str) -> None:
    """Accuracy against what is left of FLOPs and parameters."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for panel, axis in zip(panels, ("flops", "parameters"), strict=True):
        for method in METHODS:
            points: dict[float, list[tuple[float, float]]] = {}
            for row in rows:
                if row["method"] == method:
                    point = 100 * row[axis] / row[f"seed_{axis}"], 100 * row["accuracy"]
                    points.setdefault(row["share"], []).append(point)
            line = sorted(
                tuple(map(statistics.mean, zip(*p, strict=True))) for p in points.values()
            )
            panel.plot(*zip(*line, strict=True), marker="o", label=method)
        panel.set_xscale("log")
        panel.set_xticks(TICKS[axis], [f"{tick:g}" for tick in TICKS[axis]])
        panel.minorticks_off()
        panel.set_xlabel(f"{axis}, % of the seed's")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("test accuracy, %")
    panels[0].legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Trains all, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--network", default="cnn", choices=list(SEED_NETWORKS))
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot")
    flags = parser.parse_args()
    data = datasets.load("fashion_mnist")
    network = network_of(flags.network, data, flags.width)
    rows = []
    for seed in flags.seeds:
        for share in SHARES:
            for method in METHODS:
                first, *_, last = learn(network, data, config_of(method, share, flags.steps, seed))
                rows.append(
                    {
                        "method": method,
                        "share": share,
                        "seed": seed,
                        "accuracy": last.accuracy,
                        "flops": last.flops,
                        "parameters": last.parameters,
                        "seed_accuracy": first.accuracy,
                        "seed_flops": first.flops,
                        "seed_parameters": first.parameters,
                        "steps": last.steps,
                    }
                )
                print(json.dumps(rows[-1]), flush=True)
    if flags.plot:
        draw(rows, flags.plot)
    if flags.out:
        command = shlex.join(["python", *sys.argv])
        facts = {"command": command, "device": jax.devices()[0].device_kind, "rows": rows}
        write_text(flags.out, json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
