"""What regularization costs: a proximal training step over a plain one. Target: at most 1.10.

    python benchmarks/proximal_step.py --out proximal_step.json

Batch 128 of 28x28x1, sgd with momentum, FLOPs as the cost, blocks pulled as well; resnet20 takes
about three minutes on two cores. The step is that of a run: the optimizer of `morph.Budget`, where
channels decay (the default), or a threshold pulls by either penalty. Ratios are medians over
interleaved pairs in one run, warm, of whole turns. `with_looks` adds a tenth of a look of the
budget (strengths measured, channels chosen, state set) and of its record, which a run writes every
ten steps. `decay_scored` is `decay` in the last steps before the cut, when saliency is measured.
"""

import argparse
import itertools
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

import morph
import regularizers as reg
from experiments import networks
from morph.budget.budget import TURN
from morph.vocabulary import DECAY, THRESHOLD

PULLS = {  # the penalty, and what a budget does with it
    "decay": ("group_lasso", DECAY),
    "decay_scored": ("group_lasso", DECAY),
    "gamma": ("gamma", THRESHOLD),
    "group_lasso": ("group_lasso", THRESHOLD),
}
LOOK_EVERY = 10  # steps, as in `morph.Cycle`
STEPS = 10**6  # of the shrink phase: none of those measured is its last


def stepper(
    model: Any, variables: Any, tx: Any, x: jax.Array, labels: jax.Array, **first: Any
) -> Callable:
    """Returns a function that takes a training step and keeps its state, of which some is given."""

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
    if first:
        state = state._replace(**first)
    held = [variables, state]

    def run() -> Any:
        held[:] = compiled(*held)
        return held

    return run


def looker(budget: morph.Budget, variables: Any, state: Any, log: Path) -> Callable:
    """Returns a function that does what a run does every ten steps."""
    steps = itertools.count(STEPS // 4, LOOK_EVERY)

    def run() -> Any:
        step = next(steps)
        looked = budget.look(step, variables["params"], state)
        with log.open("a") as file:
            seen = budget.seen
            record = {"step": step, "loss": 0.1, "cost": seen.cost_ratio, "strength": seen.strength}
            file.write(json.dumps(record) + "\n")
        return looked

    return run


def measure(name: str, batch: int, repeats: int, calls: int) -> list[dict[str, Any]]:
    """Returns one row per way of pulling."""
    model = networks.build(name, input_shape=(28, 28, 1), num_classes=10)
    x = jax.random.normal(jax.random.key(0), (batch, 28, 28, 1))
    labels = jnp.arange(batch) % 10
    variables = model.init(jax.random.key(1), x)
    graph = reg.trace_channels(model.apply, variables, x)
    plain = optax.sgd(0.1, momentum=0.9)
    steps = {"plain": stepper(model, variables, plain, x, labels)}
    looks = {}
    for pulling, (penalty, pull) in PULLS.items():
        regularizer = reg.NetworkRegularizer(
            graph, reg.flops(graph), penalty, threshold=0.0, blocks=True
        )
        budget = morph.Budget(regularizer, 0.5, steps=STEPS, every=LOOK_EVERY, pull=pull)
        tx = budget.optimizer(plain)
        first = {
            "strength": jnp.float32(1e-3 if pull == THRESHOLD else 0.0),  # which a look sets
            "steps": jnp.int32(STEPS // 2 if pulling == "decay_scored" else 0),
        }
        steps[pulling] = stepper(model, variables, tx, x, labels, **first)
        log = Path(tempfile.mkstemp(suffix=".jsonl")[1])
        look = looker(budget, variables, tx.init(variables["params"]), log)
        look()
        looks[pulling] = statistics.median(timed(look).wall for _ in range(9))
        log.unlink()
    seconds = interleaved(steps, repeats, calls)
    base = statistics.median(seconds["plain"])
    rows = []
    for pulling in PULLS:
        ratio = median_ratio(seconds[pulling], seconds["plain"])
        rows.append(
            {
                "network": name,
                "pull": pulling,
                "plain_ms": 1e3 * base,
                "proximal_ms": 1e3 * statistics.median(seconds[pulling]),
                "look_ms": 1e3 * looks[pulling],
                "ratio": ratio,
                "with_looks": ratio + looks[pulling] / LOOK_EVERY / base,
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
        calls = 60 if name == "mlp" else TURN  # of milliseconds, many
        rows += measure(name, flags.batch, flags.repeats, calls)
    report(rows, flags.out)


if __name__ == "__main__":
    main()
