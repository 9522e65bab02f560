"""The main road: train the seed, shrink to a budget, expand, retrain; and again.

    (baselines ->) seed -> [shrink -> trim -> expand -> retrain] x cycles (-> tensorize)

A run is a list of phases (`road_of`), each of which prepares, trains and finishes; what holds for
all of them is one frozen `Context`.
"""

from __future__ import annotations

import logging
import math
import shlex
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jaxlib
import numpy as np
import optax
from jax.sharding import Mesh

from morph.budget.amounts import parse_budget
from morph.budget.prices import Prices
from morph.budget.traces import Traces
from morph.cycle.arguments import check_interval, mesh_of, place_of, plain_identity
from morph.cycle.asked import configured_optimizer, shrink_to_of, target_cost
from morph.cycle.baseline import Baseline
from morph.cycle.checkpoint import Checkpoints, Interval
from morph.cycle.checks import check_config, check_structure, check_training
from morph.cycle.config import CycleConfig
from morph.cycle.context import Context, key_of
from morph.cycle.expand import Expand
from morph.cycle.given import Start, fitted, read_start
from morph.cycle.listener import Listener, Progress, Silence
from morph.cycle.measure import Measure, architectures_of
from morph.cycle.patience import best_of
from morph.cycle.phase import Phase, arrays_of
from morph.cycle.progress import Carried, progress_json, read_progress
from morph.cycle.recipe import Recipe
from morph.cycle.result import Result
from morph.cycle.retrain import Retrain, save_final
from morph.cycle.saved import Saved
from morph.cycle.schedule import Stretch, stretches_of
from morph.cycle.seed import Seed
from morph.cycle.shrink import Shrink
from morph.cycle.stamp import stamp_of
from morph.cycle.store import Store
from morph.cycle.tensorize import Factorize, Tensorize
from morph.cycle.workdir import claim_workdir, locked, stop_on_signals, switches
from morph.errors import Interrupted
from morph.facts import facts_of, own_command, write_facts
from morph.network import Network, Variables
from morph.training.data import Batch, Parted, Pipeline, first_of, on_device
from morph.training.evaluate import Evaluator
from morph.training.layout import Layout, rules_named
from morph.training.loop import Loop
from morph.training.mesh import (
    any_of,
    check_divisible,
    from_first,
    is_first,
    local,
)
from morph.training.peers import check_alike, lost_peers
from morph.training.task import Task
from regularizers.channels.graph import ChannelGraph
from regularizers.costs.cost import Cost

logger = logging.getLogger(__name__)

PHASES: Mapping[str, Callable[[Stretch], Phase]] = {
    "whole": Baseline,
    "uniform": Baseline,
    "seed": Seed,
    "shrink": Shrink,
    "retrain": Retrain,
    "tensorize": Tensorize,
}


def road_of(config: CycleConfig) -> tuple[Phase, ...]:
    """All phases of a run, in order: those that train, and what comes between."""
    road: list[Phase] = []
    stretches = stretches_of(config)
    for before, stretch in zip((None, *stretches), stretches, strict=False):
        if before and stretch.kind == "retrain":
            road.append(Expand(replace(before, kind="expand", steps=0), stretch.warm))
        if before and stretch.kind == "tensorize":
            road.append(Factorize(replace(before, kind="factorize", steps=0)))
        road.append(PHASES[stretch.kind](stretch))
    return tuple(road)


@dataclass(kw_only=True)
class Cycle:
    """A run over a working directory.

    Attributes:
        network: the seed network.
        train: training examples, whole, which are kept on the device; or a pipeline of batches.
        test: test examples: whole, or what gives their batches each time that it is iterated
            over; one batch at a time is on the devices.
        config: how to learn.
        workdir: where everything goes; the same one resumes.
        identity: plain JSON that tells this run from others (network, data); it is kept in the
            report, and a working directory of another identity is refused.
        start: weights that the seed network has already: variables, or where they are (see
            `morph.cycle.given.read_start`). It is measured, and not trained; `config.seed_steps`
            has no use.
        task: what is minimised and measured, in place of what `config` names. Functions that are
            given here instead of by name should be told apart in `identity`.
        optimizer: `(learning rate by the step of a phase, config) -> optax transformation`.
        listener: hears how it goes, in place of the line that `progress` shows.
        progress: say on standard error how it goes, if no listener is given: on a terminal a line
            that moves, elsewhere one line for each phase.
        command: what repeats the run, for results.json; the process's own command line if None.
        look_every: steps between two looks of the budget controller.
        mesh: the devices, by axes, or their sizes, `data=4,fsdp=2`; all of all processes along
            `data` if None. Batches are divided over all axes but `tensor`.
        shard: which variables are divided over which axes, see `morph.training.layout`.
        checkpoint_seconds: a checkpoint is left at least this often; None for at phases' ends only.
        checkpoint_steps: and after this many steps; both hold at the next look.
    """

    network: Network
    train: Batch | Pipeline
    test: Batch | Iterable[Batch]
    config: CycleConfig
    workdir: Path
    identity: Mapping[str, Any] = field(default_factory=dict)
    start: Start | None = None
    task: Task = field(default_factory=Task)
    optimizer: Callable[[optax.Schedule, CycleConfig], optax.GradientTransformation] = (
        configured_optimizer
    )
    listener: Listener | None = None
    progress: bool = True
    command: str | None = None
    look_every: int = 10
    mesh: Mesh | str | None = None
    shard: str = ""
    checkpoint_seconds: float | None = 60.0
    checkpoint_steps: int | None = None

    @property
    def phases(self) -> tuple[Phase, ...]:
        """All phases, in order."""
        return road_of(self.config)

    def run(self) -> Result:
        """Runs or resumes all phases; in every process of a run alike.

        Raises:
            ConfigError: naming an argument or a setting that makes no sense. DataError: of data.
            BudgetError: before any training, if a budget cannot be met.
            MeshError: if a batch cannot be cut evenly over the devices, the processes were not
                started alike, or one of them is gone.
            StartError: if the weights to start from cannot be read or do not fit.
            WorkdirError: if the working directory belongs to another run, is used by one, or cannot
                be written; the last checkpoint stays.
            TrainingDivergedError: if the loss is not finite; the last checkpoint stays.
            Interrupted: after SIGINT or SIGTERM; a checkpoint is left.
        """
        check_training(self.config)
        if self.start is not None and self.config.seed_steps:
            return replace(self, config=replace(self.config, seed_steps=0)).run()
        check_interval("look_every", self.look_every)
        check_interval("checkpoint_seconds", self.checkpoint_seconds, least=None, none=True)
        check_interval("checkpoint_steps", self.checkpoint_steps, none=True)
        mesh_of(self.mesh)
        own = replace(self, identity=plain_identity(self.identity), workdir=place_of(self.workdir))
        with lost_peers():
            check_alike(own._alike)
            if is_first():
                return own._run()
            with tempfile.TemporaryDirectory() as scratch:  # what others write is of no use
                return replace(own, workdir=Path(scratch), listener=Silence())._run()

    def _alike(self) -> dict[str, Any]:
        """What must be the same in all processes of a run."""
        sets = {"train": self.train, "test": self.test}
        return {
            **self.identity,
            **asdict(self.config),
            **switches(),
            **{module.__name__: module.__version__ for module in (jax, jaxlib, np, optax)},
            **{name: stamp_of(one) for name, one in sets.items() if isinstance(one, Batch)},
            "look_every": self.look_every,
            "start": self.start is not None,
            "mesh": dict(mesh_of(self.mesh).shape),
            "shard": self.shard,
        }

    def _run(self) -> Result:
        began = time.monotonic()
        recipe = Recipe(config=self.config, task=self.task, optimizer=self.optimizer)
        recipe.check(self.network, self.train, self.test)
        key = key_of(self.config.seed, 0)
        example = on_device(first_of(self.test, "test set").rows(slice(0, 1)))
        traces = Traces.of_seed(self.network, key, example.x)
        check_structure(self.config, traces.graph, started=self.start is not None)
        cost = target_cost(self.config, traces.graph)
        start = None if self.start is None else fitted(read_start(self.start), traces.variables)
        mesh = mesh_of(self.mesh)
        layout = Layout.of(mesh, rules_named(self.shard), traces.variables)
        recipe = replace(recipe, config=self._even(layout, traces.graph))
        check_config(recipe.config, cost, traces.graph)
        identity = dict(self.identity)
        if start is not None:
            identity["start_fingerprint"] = stamp_of(start)
            check_alike(lambda: identity)
        self._check_batches(mesh)
        with ExitStack() as held:
            resumed = from_first(partial(self._claim, held, identity))
            prices = Prices(traces=traces, target=partial(target_cost, self.config))
            run = Context(
                recipe=recipe,
                traces=traces,
                cost=cost,
                measure=Measure(
                    prices=prices,
                    evaluator=Evaluator(
                        self.test,
                        recipe.metrics,
                        layout=layout,
                        decide=recipe.decide,
                    ),
                ),
                store=Store(workdir=self.workdir, prices=prices, facts=self._facts(cost, identity)),
                loop=Loop(
                    step=recipe.step(traces, layout),
                    data=self.train,
                    batch_size=self.config.batch_size,
                    every=self.look_every,
                    layout=layout,
                ),
                layout=layout,
                listener=self._heard(held),
                start=start,
            )
            run.listener.seed(traces.graph.widths)
            checkpoints = Checkpoints(self.workdir)
            held.callback(checkpoints.close)
            saved = checkpoints.newest() if resumed else None
            if resumed and saved is None:
                logger.warning("%s holds no checkpoint: the run begins again", self.workdir)
            result = self._walk(run, checkpoints, saved)
            self._write_results(result, time.monotonic() - began)
            return result

    def _check_batches(self, mesh: Mesh) -> None:
        """Raises if batches cannot be divided; says if every process has to read all of them."""
        if isinstance(self.train, Batch):
            check_divisible(self.config.batch_size, mesh)
        elif jax.process_count() > 1 and is_first() and not isinstance(self.train, Parted):
            logger.warning(
                "every process reads whole batches: %s has no parts(start, part, parts), as "
                "morph.training.GrainBatches has",
                type(self.train).__name__,
            )

    def _even(self, layout: Layout, graph: ChannelGraph) -> CycleConfig:
        """The configuration, with widths that the devices divide."""
        asked, needed = self.config.round_to, layout.round_to(graph)
        if (both := math.lcm(asked, needed)) > asked and is_first():
            logger.warning(
                "widths become multiples of %d, so that all devices' parts are equal", both
            )
        return replace(self.config, round_to=both)

    def _heard(self, held: ExitStack) -> Listener:
        """Who listens."""
        if self.listener is not None:
            return self.listener
        if not self.progress:
            return Silence()
        last = f"report.html of this run: morph report {shlex.quote(str(self.workdir))}"
        return held.enter_context(Progress(last=last))

    def _write_results(self, result: Result, seconds: float) -> None:
        """Writes results.json: every network of the run, the command, and what it ran on."""
        report = result.architecture.report
        told = ("target", "unit", "seed_cost", "budget", "shrink_to", "config")
        facts = {
            **self.identity,
            **{name: report[name] for name in told},
            "outcomes": [asdict(outcome) for outcome in result.outcomes],
        }
        if self.start is not None:
            facts["start_fingerprint"] = report["start_fingerprint"]
            facts["against_start"] = result.against_seed
        write_facts(self.workdir, facts_of(self.command or own_command(), seconds, facts))

    def _claim(self, held: ExitStack, identity: Mapping[str, Any]) -> bool:
        """Takes the working directory for this run; True if it is resumed."""
        held.enter_context(locked(self.workdir))
        nothing = {"start_fingerprint": None}
        config = {**nothing, **identity, **asdict(self.config)}
        return claim_workdir(self.workdir, config, {**nothing, **asdict(CycleConfig())})

    def _facts(self, cost: Cost, identity: Mapping[str, Any]) -> dict[str, Any]:
        """What every report tells."""
        return {
            "target": cost.name,
            "unit": cost.unit,
            "seed_cost": float(cost()),
            "cost": float(cost()),
            "budget": parse_budget(self.config.budget, cost),
            "shrink_to": shrink_to_of(self.config, cost),
            "config": asdict(self.config),
            "outcomes": [],
            **identity,
        }

    def _walk(self, run: Context, checkpoints: Checkpoints, saved: Saved | None) -> Result:
        """Goes through all phases, from the beginning or from a checkpoint."""
        carried, variables, number, start = _begin(run, saved)
        run.store.drop_records(number, start)
        interval = Interval(seconds=self.checkpoint_seconds, steps=self.checkpoint_steps)
        road = [phase for phase in self.phases if phase.stretch.number >= number]
        with stop_on_signals() as stopped:
            for phase, following in zip(road, (*road[1:], None), strict=False):
                if carried.converged:
                    break
                number = phase.stretch.number
                work = phase.prepare(run, carried, variables)
                if start and saved is not None:
                    work.restore(saved, run.layout)
                interval.begin(start)
                for step in phase.train(run, work, start):
                    stop, due = any_of(stopped(), is_first() and interval.due(step))
                    if (stop or due) and step > interval.last_step:
                        progress = progress_json(number, step, carried)
                        run.store.checkpoint(checkpoints, arrays_of(work.state), progress)
                        interval.begin(step)
                    if stop:
                        checkpoints.wait()
                        left = f"a checkpoint is in {checkpoints.workdir}"
                        raise Interrupted(
                            f"stopped at step {step} of phase {phase.stretch.name!r}; "
                            f"{left if number or step else 'nothing was trained yet'}"
                        )
                carried, variables = phase.finish(run, work, carried)
                start = 0
                if following is None or following.stretch.steps:
                    progress = progress_json(number + 1, 0, carried)
                    run.store.checkpoint(checkpoints, variables, progress)
            assert variables is not None  # there is always a seed phase
            checkpoints.wait()
            if any_of(stopped())[0]:
                raise Interrupted(f"stopped after the last phase; its end is in {self.workdir}")
        return _result(run, carried, local(variables))


def _begin(run: Context, saved: Saved | None) -> tuple[Carried, Variables | None, int, int]:
    """What is known, the variables, the number of the stretch and the step to go on from."""
    if saved is None:
        return Carried(architecture=run.seed), None, 0, 0
    number, start, carried = read_progress(saved.progress)
    like = carried.architecture.abstract(run.traces.variables)
    if start == 0:
        return carried, run.layout.variables(saved.into(like)), number, start
    # They come with the rest of the state, once there is one.
    blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
    return carried, run.layout.variables(blank), number, start


def _result(run: Context, carried: Carried, variables: Variables) -> Result:
    """What the run ends with: the last cycle's network, or the best one's."""
    values = run.measure.firsts(carried.outcomes)
    if run.config.patience and best_of(values) < len(values) - 1:
        run.store.take_best()
        carried = replace(carried, architecture=run.store.architecture("architecture.json"))
        variables = run.store.variables("variables")
    architecture = save_final(run, carried, variables).architecture
    shrunk = run.store.architecture("shrunk.json")
    return Result(
        architecture=architecture,
        shrunk=shrunk,
        variables=variables,
        network=run.network(architecture),
        outcomes=carried.outcomes,
        architectures=architectures_of(run.seed, shrunk, architecture, carried.outcomes),
    )
