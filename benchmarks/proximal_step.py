"""What regularization costs: a proximal training step over a plain one. Target: at most 1.10.

    python benchmarks/proximal_step.py --out proximal_step.json

Batch 128 of 28x28x1, sgd with momentum, FLOPs as the cost, blocks pulled as well; resnet20 takes
about three minutes on two cores. Ratios are medians over interleaved pairs in one run, warm.
`with_looks` adds a tenth of a look of the budget controller (strengths measured, channels chosen,
state set, record written), which happens every ten steps.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from timing import interleaved, median_ratio, report, timed

import regularizers as reg
from experiments import networks
from morph.budget.controller import Controller, Schedule
from regularizers.objective.proximal import ProximalState

PENALTIES = ("gamma", "group_lasso")
LOOK_EVERY = 10  # steps, as in `morph.Cycle`


def stepper(model: Any, variables: Any, tx: Any, x: jax.Array, labels: jax.Array) -> Callable:
    """Returns a function that takes one training step and keeps its state."""

    def step(variables: Any, state: Any) -> tuple[Any, Any]:
        def loss_fn(params: Any) -> tuple[jax.Array, Any]:
            logits, updated = model.apply(
                {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
            )
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, updated

        gradient, updated = jax.grad(loss_fn, has_aux=True)(variables["params"])
        updates, state = tx.update(gradient, state, variables["params"])
        params = optax.apply_updates(variables["params"], updates)
        return {**variables, **updated, "params": params}, state

    compiled = jax.jit(step, donate_argnums=(0, 1))
    variables = jax.tree.map(jnp.copy, variables)
    state = tx.init(variables["params"])
    if isinstance(state, ProximalState):  # set by a budget controller, between two looks
        state = state._replace(strength=jnp.float32(1e-3))
    held = [variables, state]

    def run() -> Any:
        held[:] = compiled(*held)
        return held

    return run


def looker(regularizer: reg.NetworkRegularizer, variables: Any, state: Any, log: Path) -> Callable:
    """Returns a function that does what a run does every ten steps."""
    controller = Controller(
        regularizer=regularizer, schedule=Schedule(budget_ratio=0.5, start=0, end=100)
    )

    def run() -> Any:
        look = controller.look(50, regularizer.measured(variables["params"]))
        with log.open("a") as file:
            record = {"step": 50, "loss": 0.1, "cost": look.cost_ratio, "strength": look.strength}
            file.write(json.dumps(record) + "\n")
        return look.obeyed(state)

    return run


def measure(name: str, batch: int, repeats: int, calls: int) -> list[dict[str, Any]]:
    """Returns one row per penalty."""
    model = networks.build(name, input_shape=(28, 28, 1), num_classes=10)
    x = jax.random.normal(jax.random.key(0), (batch, 28, 28, 1))
    labels = jnp.arange(batch) % 10
    variables = model.init(jax.random.key(1), x)
    graph = reg.trace_channels(model.apply, variables, x)
    plain = optax.sgd(0.1, momentum=0.9)
    steps = {"plain": stepper(model, variables, plain, x, labels)}
    looks = {}
    for penalty in PENALTIES:
        regularizer = reg.NetworkRegularizer(
            graph, reg.flops(graph), penalty, threshold=0.0, blocks=True
        )
        tx = reg.proximal(plain, regularizer, strength=0.0)
        steps[penalty] = stepper(model, variables, tx, x, labels)
        log = Path(tempfile.mkstemp(suffix=".jsonl")[1])
        look = looker(regularizer, variables, tx.init(variables["params"]), log)
        look()
        looks[penalty] = statistics.median(timed(look).wall for _ in range(9))
        log.unlink()
    seconds = interleaved(steps, repeats, calls)
    base = statistics.median(seconds["plain"])
    rows = []
    for penalty in PENALTIES:
        ratio = median_ratio(seconds[penalty], seconds["plain"])
        rows.append(
            {
                "network": name,
                "penalty": penalty,
                "plain_ms": 1e3 * base,
                "proximal_ms": 1e3 * statistics.median(seconds[penalty]),
                "look_ms": 1e3 * looks[penalty],
                "ratio": ratio,
                "with_looks": ratio + looks[penalty] / LOOK_EVERY / base,
            }
        )
    return rows


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=["mlp", "resnet8", "resnet20"])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", help="write the table as JSON to this path")
    flags = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in flags.networks:
        calls = 20 if name == "mlp" else 1
        rows += measure(name, flags.batch, flags.repeats, calls)
    report(rows, flags.out)


if __name__ == "__main__":
    main()
