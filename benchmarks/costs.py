"""What a cost costs: to evaluate, and in every training step that is regularized by it.

    python benchmarks/costs.py --out results/costs.json

Targets: 2 ms to evaluate a cost for ResNet-101 once compiled, 20 ms for the smooth Edge TPU cost
with its gradient; a proximal training step of resnet8 (batch 128 of 28x28x1, sgd with momentum,
penalty gamma) at most 1.02 of what it takes with FLOPs as the cost. Ratios are medians over
interleaved pairs in one run, warm. Takes about ten minutes on two cores, mostly compiling.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import models
import optax
from proximal_step import stepper
from timing import interleaved, median_ratio, report

import regularizers as reg
from experiments import networks
from regularizers.costs.form import SMOOTH

COSTS: Mapping[str, Callable[[reg.ChannelGraph], reg.Cost]] = {
    "flops": reg.flops,
    "size": reg.model_size,
    "activation_bytes": reg.activation_bytes,
    "activation_peak": partial(reg.activation_bytes, peak=True),
    "V100": partial(reg.latency, device="V100"),
    "energy": reg.energy,
    "edge_tpu": partial(reg.latency, device="edge_tpu"),
}
EVALUATION_MS, GRADIENT_MS, RATIO = 2.0, 20.0, 1.02  # the targets


def evaluations(name: str, costs: Mapping[str, Any], repeats: int) -> list[dict[str, Any]]:
    """Returns how long the costs of a network take: built, by numpy, compiled, with gradient."""
    model, variables, x = models.abstract(name)
    graph = reg.trace_channels(model.apply, variables, x)
    rows = []
    for kind, build in costs.items():
        start = time.perf_counter()
        cost = build(graph)
        built = time.perf_counter() - start
        widths = cost.vector()
        ones = jnp.asarray(widths, jnp.float32)
        exact = jax.jit(cost.of_vector)
        smooth = jax.jit(jax.value_and_grad(lambda w, cost=cost: cost.of_vector(w, SMOOTH)))
        seconds = interleaved(
            {
                "numpy_ms": partial(cost.of_vector, widths),
                "compiled_ms": partial(exact, ones),
                "smooth_gradient_ms": partial(smooth, ones),
            },
            repeats,
        )
        row = {"cost": kind, "network": name, "built_ms": 1e3 * built}
        rows.append(row | {key: 1e3 * statistics.median(s) for key, s in seconds.items()})
    return rows


def steps(
    name: str, costs: Mapping[str, Any], batch: int, repeats: int, calls: int
) -> list[dict[str, Any]]:
    """Returns what a training step takes with every cost, over one with FLOPs."""
    model = networks.build(name, input_shape=(28, 28, 1), num_classes=10)
    x = jax.random.normal(jax.random.key(0), (batch, 28, 28, 1))
    labels = jnp.arange(batch) % 10
    variables = model.init(jax.random.key(1), x)
    graph = reg.trace_channels(model.apply, variables, x)
    candidates = {}
    for kind, build in costs.items():
        regularizer = reg.NetworkRegularizer(graph, build(graph), "gamma", threshold=0.0)
        tx = reg.proximal(optax.sgd(0.1, momentum=0.9), regularizer, strength=1e-3)
        candidates[kind] = stepper(model, variables, tx, x, labels)
    seconds = interleaved(candidates, repeats, calls)
    return [
        {
            "cost": kind,
            "network": name,
            "step_ms": 1e3 * statistics.median(seconds[kind]),
            "ratio": median_ratio(seconds[kind], seconds["flops"]),
        }
        for kind in costs
    ]


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet101", help="evaluated; of benchmarks/models.py")
    parser.add_argument("--trained", default="resnet8", help="trained; of experiments/networks")
    parser.add_argument("--costs", nargs="*", default=list(COSTS), choices=list(COSTS))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--calls", type=int, default=1, help="training steps per measurement")
    parser.add_argument("--out", help="write the tables as JSON to this path")
    flags = parser.parse_args()
    costs = {kind: COSTS[kind] for kind in dict.fromkeys(["flops", *flags.costs])}
    evaluated = evaluations(flags.network, costs, flags.repeats)
    report(evaluated, None)
    trained = steps(flags.trained, costs, flags.batch, flags.repeats, flags.calls)
    met = {
        "evaluation": all(row["compiled_ms"] < EVALUATION_MS for row in evaluated),
        "edge_tpu_gradient": all(
            row["smooth_gradient_ms"] < GRADIENT_MS
            for row in evaluated
            if row["cost"] == "edge_tpu"
        ),
        "training_step": all(row["ratio"] <= RATIO for row in trained),
    }
    command = " ".join(["python", "benchmarks/costs.py", *sys.argv[1:]])
    report(trained, flags.out, command=command, met=met, evaluations=evaluated)
    print(met)


if __name__ == "__main__":
    main()
