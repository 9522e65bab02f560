"""Whether a budget is hit in one run: real short trainings over costs, budgets and seed networks.

    python benchmarks/budgets.py --out budgets.json

trains every seed network once on the digits data, and from it shrinks a network for every cost and
budget. A row tells what was aimed at, where the trim landed (`landed`, in budgets: in
[0.99, 1.00]), and the least that the alive cost ever was over what was scheduled (`least`: at least
0.90). Where one channel of the coarsest group costs more than a per cent of the budget (`step`),
no trim can land closer; such a row does not fail for it. An Edge TPU's cost has cliffs: one more
channel, and a layer's weights leave the cache and are sent for every inference. Where that is a
tenth of the budget the alive cost jumps too, and `least` does not count. About 20 minutes on two
cores.
"""

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from timing import report, write

from experiments import datasets, networks
from morph.budget.controller import Controller, Schedule, check_feasible
from morph.budget.trim import strongest_within
from morph.errors import BudgetError
from morph.network import Network, Variables, linen_network, nnx_network
from morph.training.data import batches
from morph.training.optimizers import make_optimizer, rate_schedule
from morph.training.step import Batch, TrainState, make_step
from regularizers.channels.graph import ChannelGraph
from regularizers.channels.trace import trace_channels
from regularizers.costs.cost import Cost
from regularizers.named import cost_named
from regularizers.objective.proximal import proximal
from regularizers.objective.regularizer import NetworkRegularizer

# Width multipliers of the seeds. What an Edge TPU needs to start, and for input and output, does
# not depend on widths, and is nearly all of what a network costs there whose weights fit its cache:
# 84 % of resnet8's at width 8, 4 % at width 12. Calling operations on a CPU does the same: 83 % at
# width 1, 6 % at width 8.
SEEDS = {"resnet8": 0.5, "inception": 0.5, "mlp": 1.0, "vit": 0.5}
WIDER = {
    "edge_tpu": {"resnet8": 12.0, "inception": 16.0, "mlp": 24.0, "vit": 16.0},
    "here": {"resnet8": 8.0, "inception": 12.0, "mlp": 8.0, "vit": 8.0},
}
COSTS = ("flops", "size", "activation_peak", "edge_tpu", "here")
BUDGETS = (0.75, 0.5, 0.25, 0.1)
LOOK_EVERY = 5
SETTLE = 0.3
BATCH, BATCH_OF_WIDE = 32, 4


@dataclass(frozen=True, kw_only=True)
class Seed:
    """A trained seed network."""

    network: Network
    variables: Variables
    graph: ChannelGraph
    data: Batch
    batch_size: int


def trained(name: str, width: float, steps: int) -> Seed:
    """Trains a seed network on the digits for a few steps."""
    loaded = datasets.load("digits", None)
    data = Batch(jnp.asarray(loaded.train_images), jnp.asarray(loaded.train_labels))
    shape = loaded.train_images.shape[1:]
    model = networks.build(name, input_shape=shape, num_classes=loaded.num_classes, width=width)
    network = linen_network(model) if isinstance(model, nn.Module) else nnx_network(model)
    x = data.x[:1]
    variables = network.init(jax.random.key(0), x)
    state = TrainState.of(network, variables, make_optimizer("adam", rate_schedule(3e-3, steps)))
    batch_size = BATCH if width <= 1.0 else BATCH_OF_WIDE
    state, _ = run(state, data, batch_size, steps)
    return Seed(
        network=network,
        variables=state.variables,
        graph=trace_channels(network.predict, state.variables, x),
        data=data,
        batch_size=batch_size,
    )


def run(
    state: TrainState,
    data: Batch,
    batch_size: int,
    steps: int,
    each: Any = None,
    step: Any = None,
) -> tuple[TrainState, Any]:
    """Trains; `each(done, state)` may change the state every `LOOK_EVERY` steps."""
    step = step or make_step(looped=False)  # convolutions in a loop are slow on a CPU
    stream = batches(len(data.x), batch_size, seed=0, start=0)
    key = jax.random.key(1)
    for done in range(LOOK_EVERY, steps + 1, LOOK_EVERY):
        chunk = np.stack([next(stream) for _ in range(LOOK_EVERY)])
        state, _ = step(state, data, chunk, key)
        if each is not None:
            state = each(done, state)
    return state, step


def shrunk(seed: Seed, cost: Cost, steps: int, chosen: Mapping[str, float]) -> list[dict[str, Any]]:
    """One row per budget; all share one compiled step."""
    regularizer = NetworkRegularizer(seed.graph, cost, threshold=0.0, relative_to=seed.variables)
    measure = jax.jit(regularizer.strengths)
    tx = proximal(make_optimizer("momentum", rate_schedule(0.02, steps)), regularizer, 0.0)
    rows, step = [], None
    for share in BUDGETS:
        started, row = time.monotonic(), {**chosen, "budget": share}
        rows.append(row)
        aimed = share * cost.seed
        try:
            check_feasible(regularizer, aimed)
        except BudgetError as error:
            row |= {"aimed": aimed, "note": "infeasible: " + str(error).split("\n")[0]}
            continue
        schedule = Schedule(budget_ratio=share, start=steps // 20, end=int(steps * (1 - SETTLE)))
        controller = Controller(regularizer=regularizer, schedule=schedule, every=LOOK_EVERY)
        along: list[float] = []

        def look(
            done: int, state: TrainState, controller: Controller = controller, along: Any = along
        ) -> TrainState:
            strengths = jax.device_get(measure(state.params))
            saliency = jax.device_get(state.opt_state.saliency)
            found = controller.look(done, strengths, saliency)
            along.append(found.cost_ratio / found.target_ratio)
            return state.replace(opt_state=found.obeyed(state.opt_state))

        own = jax.tree.map(jnp.copy, seed.variables)  # the step donates it
        state = look(0, TrainState.of(seed.network, own, tx))
        try:
            state, step = run(state, seed.data, seed.batch_size, steps, look, step)
        except BudgetError as error:
            row |= {"aimed": aimed, "note": str(error), "fails": True}
            continue
        worth = regularizer.worth(
            *jax.device_get((measure(state.params), state.opt_state.saliency))
        )
        keep = strongest_within(cost, worth, aimed, fill=True)
        widths = {name: int(kept.sum()) for name, kept in keep.items()}
        landed = float(cost(widths)) / aimed
        step_share = coarsest(cost, widths) / aimed
        least = min(along)
        row |= {
            "aimed": aimed,
            "landed_at": float(cost(widths)),
            "landed": landed,
            "least": least,
            "step": step_share,
            "alive": sum(int((worth[n] > 0).sum()) for n in widths) / sum(map(len, worth.values())),
            "seconds": time.monotonic() - started,
            "widths": widths,
            "fails": landed > 1.0
            or (landed < 0.99 and step_share < 0.01)
            or (least < 0.9 and step_share < 0.1),
        }
    return rows


def coarsest(cost: Cost, widths: Mapping[str, int]) -> float:
    """The most that one more channel of a group costs."""
    return max(
        float(cost({**widths, name: width + 1})) - float(cost(widths))
        for name, width in widths.items()
    )


def main() -> None:
    """Prints the table; fails if a row does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=list(SEEDS))
    parser.add_argument("--costs", nargs="*", default=list(COSTS))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed_steps", type=int, default=40)
    parser.add_argument("--out", help="write the table as JSON to this path")
    flags = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in flags.networks:
        seeds: dict[float, Seed] = {}
        for target in flags.costs:
            width = WIDER.get(target, SEEDS)[name]
            if width not in seeds:
                seeds[width] = trained(name, width, flags.seed_steps)
            cost = cost_named(seeds[width].graph, target)
            chosen = {"network": name, "width": width, "cost": target, "seed": cost.seed}
            steps = flags.steps if width <= 1.0 else flags.steps // 2
            found = shrunk(seeds[width], cost, steps, chosen)
            for row in found:
                shown = {k: f"{row[k]:.4g}" for k in ("landed", "least", "step") if k in row}
                fails = "FAILS" if row.get("fails") else ""
                print(name, target, row["budget"], shown, row.get("note", ""), fails, flush=True)
            rows += found
            if flags.out:  # what is there counts if it is stopped
                write(rows, flags.out)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    report([{name: row.get(name, "") for name in columns} for row in rows], flags.out)
    failing = sum(bool(row.get("fails")) for row in rows)
    print(f"{len(rows)} rows, {failing} fail, {sum('note' in row for row in rows)} with a note")
    raise SystemExit(bool(failing))


if __name__ == "__main__":
    main()
