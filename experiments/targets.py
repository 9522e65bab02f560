"""One seed network, shrunk for several costs: what each is worth in all of them.

    python -m experiments.targets --seed_network=towers --dataset=fashion_mnist

Trains the seed once. From it, for every target, a network is learned that costs BUDGET of the
seed's in that target. The table prices each of them in all targets, and times them on this machine,
interleaved. With `--output` the same is written as JSON. What is in WORKDIR already is not learned
again, so that more targets can be added, and the timing repeated.
"""

from __future__ import annotations

import json
import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Table

from experiments import datasets
from experiments.console.command import USER_ERRORS
from experiments.console.display import humanize
from experiments.models import network_of
from experiments.networks import SEED_NETWORKS
from morph.architecture.architecture import Architecture
from morph.architecture.shrink import shrink
from morph.budget.controller import Controller, Schedule, check_feasible
from morph.budget.trim import strongest_within
from morph.cycle.workdir import claim_workdir, load_variables, save_variables
from morph.network import Network, Variables
from morph.training.data import Batch, chunk_ends, chunks
from morph.training.evaluate import Evaluator
from morph.training.optimizers import make_optimizer, rate_schedule
from morph.training.step import (
    TrainState,
    check_finite,
    loops_well,
    make_step,
)
from regularizers.calibration.timing import compiled, interleaved
from regularizers.channels.graph import ChannelGraph
from regularizers.channels.trace import trace_channels
from regularizers.costs.cost import Cost
from regularizers.named import cost_named
from regularizers.objective.proximal import proximal
from regularizers.objective.regularizer import NetworkRegularizer

LOOK_EVERY = 10
SETTLE = 0.3  # the share of the shrink steps that is left to recover at the budget


def define_flags() -> flags.FlagValues:
    """The flags of this command."""
    own = flags.FlagValues()
    flags.DEFINE_enum(
        "seed_network", "towers", list(SEED_NETWORKS), "The network to begin with.", flag_values=own
    )
    flags.DEFINE_string("dataset", "fashion_mnist", "What to train on.", flag_values=own)
    flags.DEFINE_string("data_dir", None, "Where data sets are.", flag_values=own)
    flags.DEFINE_list(
        "targets",
        ["flops", "size", "edge_tpu", "here"],
        "The costs to learn a network for; `here` is the latency on this machine.",
        flag_values=own,
    )
    flags.DEFINE_float("budget", 0.5, "Of the seed's cost.", 0.0, 1.0, flag_values=own)
    flags.DEFINE_float("width", 1.0, "Multiplies the seed's widths.", flag_values=own)
    flags.DEFINE_integer("seed_steps", 150, "Training steps of the seed.", 1, flag_values=own)
    flags.DEFINE_integer("shrink_steps", 200, "And of every shrinking.", 1, flag_values=own)
    flags.DEFINE_integer("batch_size", 32, "Examples per step.", 1, flag_values=own)
    flags.DEFINE_float("learning_rate", 0.05, "Peak, of momentum SGD.", flag_values=own)
    flags.DEFINE_float("timing_seconds", 60.0, "How long to time.", flag_values=own)
    flags.DEFINE_integer("test_examples", 2000, "How many to test on.", 1, flag_values=own)
    flags.DEFINE_integer("seed", 0, "Seed of everything random.", flag_values=own)
    flags.DEFINE_string("workdir", "runs/targets", "For what was learned.", flag_values=own)
    flags.DEFINE_string("output", None, "Write the figures as JSON here.", flag_values=own)
    flags.DEFINE_bool("help", False, "Show this help.", short_name="?", flag_values=own)
    return own


@dataclass(frozen=True, kw_only=True)
class Learned:
    """A network, and what it costs in every target.

    Attributes:
        name: the target it was learned for, or `seed`.
        accuracy: on the test examples, a share.
        costs: by target, in its unit.
        widths: of the groups.
        seconds: of one call on this machine, measured.
    """

    name: str
    accuracy: float
    costs: Mapping[str, float]
    widths: Mapping[str, int]
    seconds: float = 0.0


class Study:
    """A trained seed network and what can be learned from it."""

    def __init__(self, options: flags.FlagValues) -> None:
        self.options = options
        data = datasets.load(options.dataset, options.data_dir)
        self.train = Batch(jnp.asarray(data.train_images), jnp.asarray(data.train_labels))
        test = options.test_examples
        self.evaluator = Evaluator(
            Batch(jnp.asarray(data.test_images[:test]), jnp.asarray(data.test_labels[:test]))
        )
        self.network: Network = network_of(options.seed_network, data, options.width)
        self.x = self.train.x[:1]
        abstract = jax.eval_shape(self.network.init, jax.random.key(0), self.x)
        self.graph: ChannelGraph = trace_channels(self.network.predict, abstract, self.x)
        self.step = make_step(looped=loops_well(self.graph))
        self.costs: dict[str, Cost] = {
            target: cost_named(self.graph, target) for target in options.targets
        }
        for cost in self.costs.values():
            check_feasible(self.regularizer(cost), options.budget * cost.seed)

    def regularizer(self, cost: Cost, seed: Variables | None = None) -> NetworkRegularizer:
        """What pulls on the network's channels; strengths are relative to the seed's."""
        return NetworkRegularizer(self.graph, cost, "group_lasso", threshold=0.0, relative_to=seed)

    def train_seed(self) -> Variables:
        """The seed's variables."""
        options = self.options
        variables = self.network.init(jax.random.key(options.seed), self.x)
        kept = Path(options.workdir) / "seed"
        if kept.exists():
            return load_variables(kept, variables)
        rate = rate_schedule(options.learning_rate, options.seed_steps)
        tx = make_optimizer("momentum", rate)
        state = TrainState.of(self.network, variables, tx)
        trained = self._run(state, options.seed_steps, "seed").variables
        save_variables(kept, trained)
        return trained

    def network_for(self, target: str, variables: Variables) -> tuple[Architecture, Variables]:
        """The network that is learned for a target, from the seed's variables, or was learned."""
        kept = Path(self.options.workdir) / target.replace("*", "x")
        file = kept.with_suffix(".json")
        if file.exists():
            architecture = Architecture.load(file)
            return architecture, load_variables(kept, architecture.take(variables))
        architecture, small = self._learn(target, variables)
        save_variables(kept, small)
        architecture.save(file)  # the last, so that it is there only if all is
        return architecture, small

    def _learn(self, target: str, variables: Variables) -> tuple[Architecture, Variables]:
        options, cost = self.options, self.costs[target]
        regularizer, steps = self.regularizer(cost, variables), options.shrink_steps
        measure = jax.jit(regularizer.strengths)
        schedule = Schedule(
            budget_ratio=options.budget, start=steps // 20, end=int(steps * (1.0 - SETTLE))
        )
        controller = Controller(regularizer=regularizer, schedule=schedule)
        strength = controller.initial_strength(jax.device_get(measure(variables["params"])))
        rate = rate_schedule(options.learning_rate, steps)
        tx = proximal(make_optimizer("momentum", rate), regularizer, strength)
        copied = jax.tree.map(jnp.array, variables)  # the step donates what it is given
        state = TrainState.of(self.network, copied, tx)

        def look(state: TrainState, done: int) -> TrainState:
            nonlocal strength
            seen = controller.look(done, jax.device_get(measure(state.params)), strength)
            strength = seen.strength
            print(f"  {done}: cost {seen.cost_ratio:.3f}, aim {seen.target_ratio:.3f}", flush=True)
            return state.replace(opt_state=seen.obeyed(state.opt_state))

        trained = self._run(look(state, 0), steps, target, look)
        strengths = jax.device_get(measure(trained.params))
        keep = strongest_within(cost, strengths, options.budget * cost.seed, fill=True)
        architecture = shrink(self.graph, keep)
        return architecture, architecture.take(self.graph.mask(trained.variables, keep))

    def _run(self, state: TrainState, steps: int, name: str, look: Any = None) -> TrainState:
        print(f"{name}: {steps} steps", flush=True)
        seed, ends = self.options.seed, chunk_ends(0, steps, LOOK_EVERY)
        stream = chunks(self.train, self.options.batch_size, ends, start=0, seed=seed)
        key = jax.random.key(seed)
        for done, chunk in zip(ends, stream, strict=True):
            state, losses = self.step(state, self.train, chunk, key)
            check_finite(float(losses.mean()), step=done, phase=name)
            state = look(state, done) if look is not None else state
        return state

    def price(self, name: str, predict: Any, variables: Variables, widths: Any) -> Learned:
        """What a network costs, and how good it is."""
        logits = self.evaluator.logits(jax.jit(predict), variables)
        return Learned(
            name=name,
            accuracy=self.evaluator.accuracy(logits),
            costs={target: float(cost(widths)) for target, cost in self.costs.items()},
            widths=widths,
        )


IDENTITY = (
    "seed_network", "dataset", "width", "budget", "seed_steps", "shrink_steps", "batch_size",
    "learning_rate", "seed",
)  # fmt: skip


def study(options: flags.FlagValues) -> tuple[list[Learned], Study]:
    """Learns a network for every target; the seed comes first."""
    own = Study(options)
    claim_workdir(Path(options.workdir), {name: options[name].value for name in IDENTITY})
    variables = own.train_seed()
    learned = [own.price("seed", own.network.predict, variables, own.graph.widths)]
    runs = [compiled(own.network.predict, variables, own.x)]
    for target in own.costs:
        architecture, small = own.network_for(target, variables)
        predict = own.network.resized(architecture).predict
        learned.append(own.price(target, predict, small, architecture.widths))
        runs.append(compiled(predict, small, own.x))
    times = np.median(interleaved(runs, seconds=options.timing_seconds), axis=1)
    timed = [
        Learned(**{**asdict(one), "seconds": float(seconds)})
        for one, seconds in zip(learned, times, strict=True)
    ]
    return timed, own


def table_of(learned: Sequence[Learned], costs: Mapping[str, Cost]) -> Table:
    """Every network in every cost, as a ratio to the seed's."""
    seed = learned[0]
    table = Table(title="Cost of each network, of the seed's", title_justify="left")
    table.add_column("learned for")
    for target, cost in costs.items():
        table.add_column(f"{target}\n{humanize(cost.seed, cost.unit)}", justify="right")
    table.add_column("measured here", justify="right")
    table.add_column("accuracy", justify="right")
    for one in learned:
        ratios = [f"{one.costs[t] / seed.costs[t]:.1%}" for t in costs]
        measured = f"{humanize(one.seconds, 's')}  {one.seconds / seed.seconds:.1%}"
        table.add_row(one.name, *ratios, measured, f"{one.accuracy:.1%}")
    return table


def main(argv: Sequence[str]) -> None:
    """The entry point of `python -m experiments.targets`."""
    options = define_flags()
    try:
        options(list(argv))
    except flags.Error as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    if options.help:
        print(f"{__doc__}\n{options.get_help()}")
        return
    started = time.monotonic()
    try:
        learned, own = study(options)
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    Console().print(table_of(learned, own.costs))
    if options.output:
        data = {
            "command": shlex.join(["python", "-m", "experiments.targets", *argv[1:]]),
            "seconds": round(time.monotonic() - started),
            "device": jax.devices()[0].device_kind,
            "machine": f"{platform.machine()}, python {platform.python_version()}",
            "jax": jax.__version__,
            "units": {target: cost.unit for target, cost in own.costs.items()},
            "networks": [asdict(one) for one in learned],
        }
        Path(options.output).write_text(json.dumps(data, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv)
