"""Magnitude pruning of LeNet-300-100 and LeNet-5 on MNIST, beside the tables of Han et al. (2015).

    taskset -c 1 python benchmarks/pruning.py --out results/pruning.json

For every network and seed: train it (float); prune and retrain it, in stages, each to fewer
weights (12x and on); and train the float network for as many steps more as the first stage takes,
at the same rates (longer). Chosen on the last training images: of the MLP with seed 0 and 4,000
steps a stage, one threshold for all layers (1.24 % error at 12x, 1.42 % at 25x) and not one in
standard deviations (1.42 %, 23.7 %); and with 10,000 images held out and three seeds, at 12x, twice
the float network's rate with its weight decay (1.57 % error; 1.64 % at its rate without; float
1.66 %). LeNet-5 has the same (0.84 % at 12x, 0.88 %; float 0.85 %; seed 0). What did not lower its
error at 12x: Nesterov momentum at the rate .05 (0.95 %; seed 1 0.92 %, float 1.02 %), an L2 penalty
of 1e-3 (0.91 %), the float network as a teacher (0.88 %). Not so the length of LeNet-5's stages:
with half of it the error on test images was 0.80 % at 12x and 16x, after which it was doubled (held
out: 0.88 % at 12x, 0.76 % at 16x; with half 0.84 % and 0.86 %).

The first LeNet-5 is scanned for how much each layer can lose, on training images, before it is
pruned. `--validate` trains without the last 5,000 training images and counts on them. Networks that
are in --out are not trained again. `prune` is one call for other scripts: a float network in,
`Pruned` values out.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from timing import report, write

from experiments import datasets
from experiments.models import network_of
from experiments.pictures.sensitivity_plot import plot_sensitivity
from morph.compress.coding import container
from morph.compress.curves import Sensitivity, sensitivity
from morph.compress.pruning import finished, iterative, kept_counts, pruned
from morph.compress.sparsities import DISTRIBUTIONS, Distribution, given
from morph.compress.training import accuracy_of, train
from morph.kernels.compressed import unpacked
from morph.network import Network, Variables
from morph.training.data import Batch
from morph.training.optimizers import make_optimizer, rate_schedule

VALIDATION = 5000  # of the training images, the last
SCANNED = ("lenet5", 0)  # network and seed, for the figure


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Pruning to a share of the weights in a few rounds, then retraining.

    Attributes:
        kept: the share of all weights that stay.
        rounds: pruning steps, over the first half of the steps; each keeps the same part.
        steps: in all.
        rate: the highest learning rate.
    """

    kept: float
    rounds: int
    steps: int
    rate: float

    @property
    def name(self) -> str:
        """How many times fewer weights."""
        return f"{1 / self.kept:.3g}x"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained and pruned.

    Attributes:
        network: its name.
        steps: of the float network.
        rate: its highest learning rate.
        batch_size: of all training.
        optimizer: of all training, by name.
        weight_decay: of the float network.
        retrain_decay: while it is pruned.
        distribution: a name, or shares of the weights that layers keep.
        stages: one after the other.
    """

    network: str
    steps: int
    rate: float
    batch_size: int
    optimizer: str
    weight_decay: float
    retrain_decay: float
    distribution: str | Mapping[str, float]
    stages: tuple[Stage, ...]

    def until(self, times: float) -> "Recipe":
        """The stages to at least so many times fewer weights."""
        count = next(i for i, stage in enumerate(self.stages, 1) if stage.kept * times < 1.0001)
        return replace(self, stages=self.stages[:count])


RECIPES = {
    "mlp": Recipe(
        network="mlp",
        steps=8000,
        rate=1e-3,
        batch_size=128,
        optimizer="adam",
        weight_decay=1e-4,
        retrain_decay=1e-4,
        distribution="global",
        stages=(
            Stage(kept=1 / 12, rounds=5, steps=8000, rate=2e-3),
            Stage(kept=1 / 16, rounds=1, steps=4000, rate=2e-3),
            Stage(kept=1 / 20, rounds=1, steps=4000, rate=2e-3),
            Stage(kept=1 / 25, rounds=1, steps=4000, rate=2e-3),
            Stage(kept=1 / 40, rounds=2, steps=4000, rate=2e-3),
        ),
    ),
    "lenet5": Recipe(
        network="lenet5",
        steps=4000,
        rate=1e-3,
        batch_size=64,
        optimizer="adam",
        weight_decay=1e-4,
        retrain_decay=1e-4,
        distribution="global",
        stages=(
            Stage(kept=1 / 12, rounds=5, steps=8000, rate=2e-3),
            Stage(kept=1 / 16, rounds=1, steps=4000, rate=2e-3),
        ),
    ),
}
# What part of each layer's weights stays in Han et al. 2015, tables 3 and 4.
PAPER = {
    "mlp": {"Dense_0": 0.08, "Dense_1": 0.09, "Dense_2": 0.26, "all": 0.08},
    "lenet5": {"Conv_0": 0.66, "Conv_1": 0.12, "Dense_0": 0.08, "Dense_1": 0.19, "all": 0.08},
}


def trained(network: Network, data: Batch, recipe: Recipe, seed: int) -> Variables:
    """The float network."""
    start = network.init(jax.random.key(seed), data.x[:1])
    rate = rate_schedule(recipe.rate, recipe.steps)
    tx = make_optimizer(recipe.optimizer, rate, weight_decay=recipe.weight_decay)
    own = {"steps": recipe.steps, "batch_size": recipe.batch_size, "seed": seed}
    return train(network, start, data, tx, **own)[0]


def longer(
    network: Network, variables: Variables, data: Batch, recipe: Recipe, seed: int
) -> Variables:
    """The float network, trained on as the first stage would but not pruned."""
    stage = recipe.stages[0]
    tx = make_optimizer(
        recipe.optimizer,
        rate_schedule(stage.rate, stage.steps),
        weight_decay=recipe.weight_decay,
    )
    own = {"steps": stage.steps, "batch_size": recipe.batch_size, "seed": seed + 1000}
    return train(network, variables, data, tx, **own)[0]


def prune(
    network: Network, variables: Variables, data: Batch, recipe: Recipe, seed: int
) -> Variables:
    """A float network with `Pruned` values where kernels stood, after the recipe's last stage."""
    *_, (_, result) = pruning(network, variables, data, recipe, seed)
    return result


def pruning(
    network: Network, variables: Variables, data: Batch, recipe: Recipe, seed: int
) -> Iterator[tuple[Stage, Variables]]:
    """The network after every stage."""
    chosen = recipe.distribution
    distribution: Distribution = DISTRIBUTIONS[chosen] if isinstance(chosen, str) else given(chosen)
    before = 1.0
    for number, stage in enumerate(recipe.stages, 1):
        densities = before * (stage.kept / before) ** (
            np.arange(1, stage.rounds + 1) / stage.rounds
        )
        schedule = iterative(
            (1.0 - densities).tolist(), every=max(1, stage.steps // (2 * stage.rounds))
        )
        tx = pruned(
            make_optimizer(
                recipe.optimizer,
                rate_schedule(stage.rate, stage.steps),
                weight_decay=recipe.retrain_decay,
            ),
            schedule,
            distribution,
        )
        own = {"steps": stage.steps, "batch_size": recipe.batch_size, "seed": seed + 1000 * number}
        variables, state = train(network, unpacked(variables), data, tx, **own)
        variables = {**variables, "params": finished(variables["params"], state)}
        before = stage.kept
        yield stage, variables


def measure(
    name: str, seed: int, train_set: Batch, test_set: Batch, keep: Path
) -> list[dict[str, Any]]:
    """Trains and prunes one network, and leaves all of its states; a row for each."""
    recipe, rows = RECIPES[name], []
    network = network_of(name, datasets.load("mnist"), 1.0)
    started = time.monotonic()

    def add(kind: str, variables: Variables, steps: int) -> None:
        counts = kept_counts(variables["params"])
        kept, weights = (sum(column) for column in zip(*counts.values(), strict=True))
        rows.append(
            {
                "network": name,
                "kind": kind,
                "seed": seed,
                "error_percent": 100 * (1 - accuracy_of(network, variables, test_set)),
                "kept_percent": 100 * kept / weights,
                "steps": steps,
                "seconds": time.monotonic() - started,
                "layers": {
                    path.split("/")[0]: 100 * own / all_ for path, (own, all_) in counts.items()
                },
            }
        )
        print({key: value for key, value in rows[-1].items() if key != "layers"}, flush=True)
        keep.mkdir(parents=True, exist_ok=True)
        container.save(keep / f"{name}-{seed}-{kind}.morph", variables)

    start = trained(network, train_set, recipe, seed)
    add("float", start, recipe.steps)
    if (name, seed) == SCANNED:
        before_scan = time.monotonic()
        rows[-1]["scan"] = asdict(sensitivity(network, start, train_set))
        rows[-1]["scan_seconds"] = time.monotonic() - before_scan
    steps = recipe.steps
    for stage, variables in pruning(network, start, train_set, recipe, seed):
        steps += stage.steps
        add(stage.name, variables, steps)
    variables = longer(network, start, train_set, recipe, seed)
    add("longer", variables, recipe.steps + recipe.stages[0].steps)
    return rows


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over seeds, per network and kind."""
    found = []
    for name, kind in dict.fromkeys((row["network"], row["kind"]) for row in rows):
        own = [row for row in rows if (row["network"], row["kind"]) == (name, kind)]
        errors = [row["error_percent"] for row in own]
        found.append(
            {
                "network": name,
                "kind": kind,
                "seeds": len(own),
                "error_percent": statistics.mean(errors),
                "lowest": min(errors),
                "highest": max(errors),
                "kept_percent": statistics.mean(row["kept_percent"] for row in own),
                "steps": own[0]["steps"],
            }
        )
    return found


def beside_paper(rows: list[dict[str, Any]], name: str, kind: str) -> list[dict[str, Any]]:
    """Per layer what part of its weights is kept, here (mean over seeds) and in the paper."""
    own = [row for row in rows if (row["network"], row["kind"]) == (name, kind)]
    layers = [{**row["layers"], "all": row["kept_percent"]} for row in own]
    return [
        {
            "network": name,
            "layer": layer,
            "kept_percent": statistics.mean(each[layer] for each in layers),
            "paper_percent": 100 * share,
        }
        for layer, share in PAPER[name].items()
    ]


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument(
        "--validate",
        action="store_true",
        help="train without, and count on, the last training images",
    )
    parser.add_argument(
        "--figure",
        help="draw the sensitivity of LeNet-5's layers to this path, e.g. docs/sensitivity.png",
    )
    parser.add_argument(
        "--keep",
        type=Path,
        default=Path("runs/lenets"),
        help="leave the networks here, for benchmarks/deep_compression.py",
    )
    parser.add_argument("--out", help="write the table as JSON to this path")
    flags = parser.parse_args()
    data = datasets.load("mnist")
    train_set = Batch(data.train_images, data.train_labels)
    test_set = Batch(data.test_images, data.test_labels)
    if flags.validate:
        test_set = Batch(*(part[-VALIDATION:] for part in train_set))
        train_set = Batch(*(part[:-VALIDATION] for part in train_set))
    recipes = json.loads(json.dumps({name: asdict(recipe) for name, recipe in RECIPES.items()}))
    facts = {"validated": flags.validate, "recipes": recipes, "paper": PAPER}
    rows: list[dict[str, Any]] = []
    if flags.out and Path(flags.out).exists():
        old = json.loads(Path(flags.out).read_text())
        if old["validated"] == flags.validate:
            rows = [
                row
                for row in old["rows"]
                if old["recipes"][row["network"]] == recipes[row["network"]]
            ]
    for seed in flags.seeds:
        for name in flags.networks:
            if not any((row["network"], row["seed"]) == (name, seed) for row in rows):
                rows += measure(name, seed, train_set, test_set, flags.keep)
                if flags.out:
                    write(rows, flags.out, **facts, summary=summary(rows))
    if flags.out:  # without what has another recipe now
        write(rows, flags.out, **facts, summary=summary(rows))
    for row in rows:
        if flags.figure and "scan" in row:
            plot_sensitivity(Sensitivity(**row["scan"]), flags.figure, "LeNet-5, one layer pruned")
    report(summary(rows), None)
    for name in flags.networks:
        report(beside_paper(rows, name, RECIPES[name].stages[0].name), None)


if __name__ == "__main__":
    main()
