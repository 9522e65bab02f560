"""What a sweep of 8 budgets costs, over one run. Target: less than 5x on a CPU, 2x on a GPU.

    python benchmarks/sweep.py --out sweep.json

The MLP on digits (64-300-100-10, batch 128). A run trains the seed, shrinks it, and trains the
learned widths from scratch; a sweep does that for all budgets in one compiled program. Whole times
include compiling, as a person waits for it; warm ones do not. Pairs are interleaved; ratios are
medians over them. The last row is what one step of 8 runs takes over one step of one.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timing import interleaved, median_ratio, report

from experiments import datasets, networks
from morph.cycle.config import CycleConfig
from morph.cycle.members import Member
from morph.cycle.sweep import Sweep
from morph.network import linen_network
from morph.training.data import Batch
from morph.training.step import TrainState

BUDGETS = (0.9, 0.75, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
STAGES = ("seed", "shrink", "retrain")


def make_sweep(network: str, steps: int) -> Sweep:
    """A sweep that has compiled nothing yet; a seventh of the steps trains the seed."""
    data = datasets.load("digits")
    module = networks.build(network, input_shape=data.train_images.shape[1:], num_classes=10)
    config = CycleConfig(
        seed_steps=steps // 7,
        shrink_steps=steps * 3 // 7,
        retrain_steps=steps * 3 // 7,
        penalty="group_lasso",
    )
    return Sweep(
        network=linen_network(module),
        train=Batch(data.train_images, data.train_labels),
        test=Batch(data.test_images, data.test_labels),
        config=config,
    )


def seconds_of(sweep: Sweep, budgets: Sequence[float]) -> dict[str, float]:
    """Seconds of every stage of a sweep."""
    times = [time.perf_counter()]
    (seed,) = sweep.train_seeds([0])
    times.append(time.perf_counter())
    members = [Member(budget=budget, seed=0) for budget in budgets]
    shrunk = sweep.shrink(members, {0: seed.variables}, sweep.pulling(seed.variables))
    times.append(time.perf_counter())
    sweep.retrain([one.architecture for one in shrunk], [0] * len(shrunk))
    times.append(time.perf_counter())
    return dict(zip((*STAGES, "whole"), [*np.diff(times), times[-1] - times[0]], strict=True))


def step_of(sweep: Sweep, runs: int, steps: int = 10) -> Callable[[], Any]:
    """A function that takes a chunk of plain steps of several runs."""
    variables = sweep.network.init(jax.random.key(0), sweep.train.x[:1])
    tx = sweep.optimizer(lambda step: 0.1, sweep.config)
    data = Batch(*map(jnp.asarray, sweep.train))
    one = TrainState.of(sweep.network, variables, tx)
    held = [jax.tree.map(lambda leaf: np.stack([leaf] * runs), one)]
    index = np.tile(np.arange(128), (runs, steps, 1))
    keys = jax.random.split(jax.random.key(0, impl="rbg"), runs)

    def run() -> Any:
        held[0], losses = sweep._step(held[0], data, index, keys)
        return losses

    return run


def measure(network: str, steps: int, repeats: int) -> list[dict[str, Any]]:
    """One row per stage, and one for the step alone."""
    found: Mapping[int, list[dict[str, float]]] = {1: [], len(BUDGETS): []}
    for _ in range(repeats):
        for count, seen in found.items():
            seen.append(seconds_of(make_sweep(network, steps), BUDGETS[-count:]))
    rows = []
    for stage in ("whole", *STAGES):
        one, many = ([times[stage] for times in seen] for seen in found.values())
        rows.append(_row(f"{stage}, with compiling", one, many))
    sweep = make_sweep(network, steps)
    warm = {str(count): step_of(sweep, count) for count in found}
    one, many = interleaved(warm, 5 * repeats).values()
    return [*rows, _row("10 steps, warm", one, many)]


def _row(stage: str, one: list[float], many: list[float]) -> dict[str, Any]:
    return {
        "stage": stage,
        "one_run_s": float(np.median(one)),
        "eight_runs_s": float(np.median(many)),
        "ratio": median_ratio(many, one),
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="mlp")
    parser.add_argument("--steps", type=int, default=1400, help="of every run, in all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", help="write the table as JSON to this path")
    flags = parser.parse_args()
    rows = measure(flags.network, flags.steps, flags.repeats)
    report(rows, flags.out, network=flags.network, budgets=BUDGETS, steps=flags.steps)


if __name__ == "__main__":
    main()
