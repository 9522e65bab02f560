"""The main road: train the seed, shrink to a budget, expand, retrain; and again.

    (uniform baseline ->) seed -> [shrink -> trim -> expand -> retrain] x cycles

A run is a list of phases. Whatever a phase needs is recomputed from its number, its step and the
last checkpoint, so that a run that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from morph.architecture import Architecture
from morph.budget import Controller, Look, Schedule, strongest_within
from morph.checkpoint import (
    Checkpoints,
    Interrupted,
    claim_workdir,
    save_variables,
    stop_on_signals,
)
from morph.config import CycleConfig, check_config, target_cost
from morph.expand import expand
from morph.initialize import COMPILE_QUICKLY
from morph.network import Network, Variables
from morph.progress import Carried, Outcome, carried_from_json, drop_records, progress_json
from morph.shrink import shrink
from morph.train import (
    Batch,
    Evaluator,
    Loss,
    TrainState,
    batches,
    check_finite,
    cross_entropy,
    make_step,
    momentum_sgd,
)
from regularizers.channels.graph import ChannelGraph, trace_channels
from regularizers.costs.flops import flops
from regularizers.costs.size import model_size
from regularizers.objective import NetworkRegularizer
from regularizers.proximal import proximal

NAMES = {"seed": "seed", "uniform": "uniform", "retrain": "expanded and retrained"}


@dataclass(frozen=True)
class Phase:
    """One stretch of training: `seed`, `shrink`, `retrain` or `uniform`."""

    kind: str
    cycle: int
    steps: int

    @property
    def name(self) -> str:
        """The kind, numbered from the second cycle on."""
        return self.kind if self.cycle == 0 else f"{self.kind} {self.cycle + 1}"


class Listener(Protocol):
    """Hears how a run goes; `experiments.display.Display` is one."""

    def seed(self, widths: Mapping[str, int]) -> None:
        """The widths of the seed network's groups, once."""

    def phase(self, name: str, total_steps: int) -> None:
        """A phase begins."""

    def update(self, step: int, **metrics: Any) -> None:
        """A step is done."""


class Silence:
    """A listener that does nothing."""

    def seed(self, widths: Mapping[str, int]) -> None:
        """Nothing."""

    def phase(self, name: str, total_steps: int) -> None:
        """Nothing."""

    def update(self, step: int, **metrics: Any) -> None:
        """Nothing."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run learned.

    Attributes:
        architecture: the final one, relative to the seed network.
        shrunk: the architecture before the last expansion.
        variables: the final network's, trained.
        network: the final network.
        outcomes: seed, shrunk, expanded and retrained, of each cycle, and the baseline.
    """

    architecture: Architecture
    shrunk: Architecture
    variables: Variables
    network: Network
    outcomes: tuple[Outcome, ...]


def sgd(peak: float, steps: int, config: CycleConfig) -> optax.GradientTransformation:
    """The default optimizer: see `momentum_sgd`."""
    return momentum_sgd(peak, steps, weight_decay=config.weight_decay)


@dataclass(kw_only=True)
class Shrinking:
    """What a shrink phase has besides: who measures, who decides, and the strength in force."""

    graph: ChannelGraph
    regularizer: NetworkRegularizer
    measure: Callable[[Any], dict[str, np.ndarray]]  # from params to strengths; compiled once
    controller: Controller
    strength: float


@dataclass(kw_only=True)
class Trainer:
    """A phase in progress."""

    phase: Phase
    architecture: Architecture  # at its start, relative to the seed
    network: Network
    state: TrainState
    predict: Callable[[Variables, Any], Any]  # jitted
    shrinking: Shrinking | None = None

    def obey(self, look: Look) -> None:
        """Puts what the controller decided into the optimizer's state."""
        assert self.shrinking is not None
        self.shrinking.strength = look.strength
        opt_state = look.obeyed(self.state.opt_state)
        self.state = self.state.replace(opt_state=opt_state)


@dataclass(kw_only=True)
class Cycle:
    """A run over a working directory.

    Attributes:
        network: the seed network.
        train: training examples, whole; they are kept on the device.
        test: test examples, whole.
        config: how to learn.
        workdir: where everything goes; the same one resumes.
        identity: plain JSON that tells this run from others (network, data); it is kept in the
            report, and a working directory of another identity is refused.
        loss: `(logits, y) -> scalar`.
        optimizer: `(peak learning rate, steps, config) -> optax transformation`.
        listener: hears how it goes.
        look_every: steps between two looks of the budget controller.
    """

    network: Network
    train: Batch
    test: Batch
    config: CycleConfig
    workdir: Path
    identity: Mapping[str, Any] = field(default_factory=dict)
    loss: Loss = cross_entropy
    optimizer: Callable[[float, int, CycleConfig], optax.GradientTransformation] = sgd
    listener: Listener = field(default_factory=Silence)
    look_every: int = 10

    @property
    def phases(self) -> tuple[Phase, ...]:
        """All phases, in order."""
        c = self.config
        baseline = [Phase("uniform", 0, c.retrain_steps)] if c.baseline else []
        cycles = [
            phase
            for i in range(c.cycles)
            for phase in (Phase("shrink", i, c.shrink_steps), Phase("retrain", i, c.retrain_steps))
        ]
        return (*baseline, Phase("seed", 0, c.seed_steps), *cycles)

    def run(self) -> Result:
        """Runs or resumes all phases.

        Raises:
            BudgetError: before any training, if a budget cannot be met.
            WorkdirError: if the working directory belongs to another run.
            TrainingDivergedError: if the loss is not finite; the last checkpoint stays.
            Interrupted: after SIGINT or SIGTERM; a checkpoint is left.
        """
        self._seed_variables = jax.eval_shape(self.network.init, self._key(0), self._x)
        self._seed_graph = trace_channels(self.network.predict, self._seed_variables, self._x)
        self._seed_cost = target_cost(self.config, self._seed_graph)
        self._seed_flops = flops(self._seed_graph)
        self._seed_size = model_size(self._seed_graph)
        check_config(self.config, self._seed_cost, self._seed_graph)
        resumed = claim_workdir(self.workdir, {**self.identity, **asdict(self.config)})
        self._data = Batch(*map(jnp.asarray, self.train))
        self._evaluator = Evaluator(Batch(*map(jnp.asarray, self.test)))
        self._step = make_step(self.loss)
        self.listener.seed(self._seed_graph.widths)
        checkpoints = Checkpoints(self.workdir)
        try:
            return self._run_phases(checkpoints, resumed)
        finally:
            checkpoints.close()

    def _run_phases(self, checkpoints: Checkpoints, resumed: bool) -> Result:
        carried = Carried(architecture=Architecture.of_seed(self._seed_graph))
        variables: Variables | None = None
        first, start, strength = 0, 0, 0.0
        number = checkpoints.latest() if resumed else None
        if number is not None:
            progress = checkpoints.progress(number)
            first, start, strength = progress["phase"], progress["step"], progress["strength"]
            carried = carried_from_json(progress["carried"])
            if first == len(self.phases) or self.phases[first].kind == "shrink":
                like = carried.architecture.abstract(self._seed_variables)
                if start == 0:
                    variables = checkpoints.arrays(number, like)
                else:  # they come with the rest of the state, below
                    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
        drop_records(self._records, first, start)
        with stop_on_signals() as stopped:
            for i in range(first, len(self.phases)):
                trainer = self._prepare(i, carried, variables)
                if start and number is not None:
                    if trainer.shrinking is not None:
                        trainer.shrinking.strength = strength
                    arrays = checkpoints.arrays(number, _arrays(trainer.state))
                    trainer.state = trainer.state.replace(**arrays)
                for step in self._steps(i, trainer, start):
                    if stopped():
                        number = (number or 0) + 1
                        strength = trainer.shrinking.strength if trainer.shrinking else 0.0
                        progress = progress_json(i, step, strength, carried)
                        checkpoints.save(number, _arrays(trainer.state), progress)
                        raise Interrupted(
                            f"stopped at step {step} of phase {trainer.phase.name!r}; "
                            f"a checkpoint is in {self.workdir}"
                        )
                carried, variables = self._finish(trainer, carried)
                start, number = 0, (number or 0) + 1
                checkpoints.save(number, variables, progress_json(i + 1, 0, 0.0, carried))
        assert variables is not None  # there is always a seed phase
        return self._result(carried, variables)

    def _prepare(self, i: int, carried: Carried, variables: Variables | None) -> Trainer:
        """The network, its variables and its optimizer at the start of a phase."""
        c, phase = self.config, self.phases[i]
        architecture = carried.architecture
        if phase.kind == "uniform":
            seed = Architecture.of_seed(self._seed_graph)
            limit = c.expand_budget * self._seed_cost()
            architecture = expand(seed, self._seed_cost, limit, round_to=c.round_to)
        network = self.network.resized(architecture)
        shrinking: Shrinking | None = None
        if phase.kind == "shrink":
            assert variables is not None  # it follows a phase that trained them
            shrinking = self._shrinking(network, variables, phase)
            tx = proximal(
                self.optimizer(c.shrink_learning_rate, phase.steps, c),
                shrinking.regularizer,
                shrinking.strength,
            )
        else:
            initialise = jax.jit(network.init, compiler_options=COMPILE_QUICKLY)
            variables = initialise(self._key(i), self._x)
            tx = self.optimizer(c.learning_rate, phase.steps, c)
        trainer = Trainer(
            phase=phase,
            architecture=architecture,
            network=network,
            state=TrainState.of(network, variables, tx),
            predict=jax.jit(network.predict),
            shrinking=shrinking,
        )
        if shrinking is not None:  # protects from the first step on
            strengths = shrinking.measure(trainer.state.params)
            trainer.obey(shrinking.controller.look(0, strengths, shrinking.strength))
        return trainer

    def _shrinking(self, network: Network, variables: Variables, phase: Phase) -> Shrinking:
        """The regularizer and the budget controller of a shrink phase."""
        c = self.config
        graph = trace_channels(network.predict, variables, self._x)
        regularizer = NetworkRegularizer(graph, target_cost(c, graph), c.penalty, threshold=0.0)
        schedule = Schedule(
            budget_ratio=c.budget * self._seed_cost() / regularizer.seed_cost,
            start=phase.steps // 20,
            end=int(phase.steps * (1.0 - c.settle)),
        )
        controller = Controller(regularizer=regularizer, schedule=schedule, min_width=c.min_width)
        compiled = jax.jit(regularizer.strengths)

        def measure(params: Any) -> dict[str, np.ndarray]:
            return jax.device_get(compiled(params))

        return Shrinking(
            graph=graph,
            regularizer=regularizer,
            measure=measure,
            controller=controller,
            strength=controller.initial_strength(measure(variables["params"])),
        )

    def _steps(self, i: int, trainer: Trainer, start: int) -> Iterator[int]:
        """Trains; yields the number of steps done after each, and once before the first."""
        phase, c = trainer.phase, self.config
        self.listener.phase(phase.name, phase.steps)
        shrinking, key = trainer.shrinking, self._key(i)
        stream = batches(len(self._data.x), c.batch_size, seed=c.seed * 1000 + i, start=start)
        test_every = max(self.look_every, phase.steps // 5 // self.look_every * self.look_every)
        yield start
        for done in range(start + 1, phase.steps + 1):
            trainer.state, loss = self._step(trainer.state, self._data, next(stream), key)
            if done % self.look_every == 0 or done == phase.steps:
                metrics: dict[str, Any] = {"loss": float(loss)}
                check_finite(metrics["loss"], step=done, phase=phase.name)
                if shrinking is not None:
                    strengths = shrinking.measure(trainer.state.params)
                    metrics |= self._look(trainer, shrinking, done, strengths)
                    alive = {name: int((s > 0).sum()) for name, s in strengths.items()}
                    self.listener.update(done, widths=alive)
                if done % test_every == 0 or done == phase.steps:
                    logits = self._evaluator.logits(trainer.predict, trainer.state.variables)
                    metrics["test_accuracy"] = self._evaluator.accuracy(logits)
                self.listener.update(done, **metrics)
                record = {"phase": phase.name, "phase_index": i, "step": done, **metrics}
                with self._records.open("a") as file:
                    file.write(json.dumps(record) + "\n")
            yield done

    def _look(
        self, trainer: Trainer, shrinking: Shrinking, step: int, strengths: Mapping[str, np.ndarray]
    ) -> dict[str, float]:
        """Lets the controller look and decide; what it saw, with costs over the seed's."""
        look = shrinking.controller.look(step, strengths, shrinking.strength)
        trainer.obey(look)
        scale = shrinking.regularizer.seed_cost / self._seed_cost()
        return {
            "cost_ratio": look.cost_ratio * scale,
            "target_ratio": look.target_ratio * scale,
            "strength": 0.0 if look.settled else look.strength,
        }

    def _finish(self, trainer: Trainer, carried: Carried) -> tuple[Carried, Variables]:
        """Measures the network at the end of its phase, and after a shrink phase resizes it."""
        variables = trainer.state.variables
        kind, steps = trainer.phase.kind, trainer.phase.steps
        if trainer.shrinking is not None:
            more = replace(carried, steps=carried.steps + steps)
            return self._shrink(trainer, trainer.shrinking, more)
        name = NAMES[kind]
        logits = self._evaluator.logits(trainer.predict, variables)
        outcome = self._measure(name, trainer.phase, trainer.architecture, logits, steps)
        return replace(carried, outcomes=(*carried.outcomes, outcome), steps=steps), variables

    def _shrink(
        self, trainer: Trainer, shrinking: Shrinking, carried: Carried
    ) -> tuple[Carried, Variables]:
        """Trims to the budget, removes what is dead, compares with the dense network, expands."""
        c, graph, regularizer = self.config, shrinking.graph, shrinking.regularizer
        variables = trainer.state.variables
        strengths = shrinking.measure(trainer.state.params)
        limit = c.budget * self._seed_cost()
        keep = strongest_within(
            regularizer.cost, strengths, limit, min_width=c.min_width, fill=True
        )
        masked = graph.mask(variables, keep)
        step = shrink(graph, keep, min_width=c.min_width)
        shrunk = carried.architecture.then(step)
        small = step.take(masked)
        dense_logits = self._evaluator.logits(trainer.predict, masked)
        predict = jax.jit(self.network.resized(shrunk).predict)
        logits = self._evaluator.logits(predict, small)
        outcome = replace(
            self._measure("shrunk", trainer.phase, shrunk, logits, carried.steps),
            logit_difference=float(
                np.abs(logits - dense_logits).max() / np.abs(dense_logits).max()
            ),
            same_predictions=bool((logits.argmax(-1) == dense_logits.argmax(-1)).all()),
        )
        outcomes = (*carried.outcomes, outcome)
        self._with_report(shrunk, outcomes).save(self.workdir / "shrunk.json")
        save_variables(self.workdir / "shrunk_variables", small)
        budget = c.expand_budget * self._seed_cost()
        wide = expand(shrunk, self._seed_cost, budget, round_to=c.round_to)
        return replace(carried, architecture=wide, outcomes=outcomes), small

    def _measure(
        self, name: str, phase: Phase, architecture: Architecture, logits: np.ndarray, steps: int
    ) -> Outcome:
        widths = architecture.widths
        return Outcome(
            name=name if phase.cycle == 0 else f"{name} {phase.cycle + 1}",
            accuracy=self._evaluator.accuracy(logits),
            cost=float(self._seed_cost(widths)),
            flops=float(self._seed_flops(widths)),
            parameters=int(self._seed_size(widths)),
            widths=widths,
            steps=steps,
            width_multiplier=architecture.width_multiplier,
        )

    def _with_report(
        self, architecture: Architecture, outcomes: tuple[Outcome, ...]
    ) -> Architecture:
        cost = self._seed_cost
        return replace(
            architecture,
            report={
                "target": cost.name,
                "unit": cost.unit,
                "seed_cost": float(cost()),
                "cost": float(cost(architecture.widths)),
                "budget": self.config.budget * float(cost()),
                "expand_budget": self.config.expand_budget * float(cost()),
                "config": asdict(self.config),
                "outcomes": [asdict(outcome) for outcome in outcomes],
                **self.identity,
            },
        )

    def _result(self, carried: Carried, variables: Variables) -> Result:
        architecture = self._with_report(carried.architecture, carried.outcomes)
        architecture.save(self.workdir / "architecture.json")
        save_variables(self.workdir / "variables", variables)
        return Result(
            architecture=architecture,
            shrunk=Architecture.load(self.workdir / "shrunk.json"),
            variables=variables,
            network=self.network.resized(architecture),
            outcomes=carried.outcomes,
        )

    @property
    def _records(self) -> Path:
        return self.workdir / "metrics.jsonl"

    @property
    def _x(self) -> Any:
        return jnp.asarray(self.train.x[:1])

    def _key(self, i: int) -> Any:
        # rbg: several times faster to compile than threefry, and as good for training.
        return jax.random.fold_in(jax.random.key(self.config.seed, impl="rbg"), i)


def _arrays(state: TrainState) -> dict[str, Any]:
    """All that changes while training."""
    return {
        "step": state.step,
        "params": state.params,
        "opt_state": state.opt_state,
        "collections": state.collections,
    }
