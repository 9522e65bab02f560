"""The main road: train the seed, shrink to a budget, expand, retrain; and again.

    (uniform baseline ->) seed -> [shrink -> trim -> expand -> retrain] x cycles (-> tensorize)

A run is a list of phases. Whatever a phase needs is recomputed from its number, its step and the
last checkpoint, so that a run that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from morph.architecture.architecture import Architecture
from morph.architecture.expand import expand, widening
from morph.budget.amounts import parse_budget
from morph.budget.prices import Prices
from morph.cycle.checkpoint import Checkpoints, Interval, Saved
from morph.cycle.checks import (
    check_config,
    check_training,
    names_of,
    tensor_kinds,
)
from morph.cycle.config import CycleConfig, configured_optimizer, target_cost
from morph.cycle.listener import Listener, Silence
from morph.cycle.patience import (
    BEST,
    best_of,
    copy_kept,
    is_over,
)
from morph.cycle.phases import Phase, phases_of, rate_of
from morph.cycle.progress import (
    Carried,
    Outcome,
    carried_from_json,
    drop_records,
    progress_json,
)
from morph.cycle.shrinking import Shrinking, begin, trimmed
from morph.cycle.starts import fresh, told_apart
from morph.cycle.trainer import Trainer, arrays_of
from morph.cycle.workdir import (
    claim_workdir,
    load_variables,
    locked,
    save_variables,
    stop_on_signals,
)
from morph.errors import DataError, Interrupted
from morph.files import sync
from morph.network import Network, Variables
from morph.tensorize.plan import tensorize_plan
from morph.training.augment import Augmentation, augmented
from morph.training.checks import check_data, check_labels
from morph.training.data import (
    Batch,
    Pipeline,
    chunk_ends,
    chunks,
    resident,
)
from morph.training.evaluate import Evaluator
from morph.training.gated import folded, gated_network, with_gates
from morph.training.losses import (
    METRICS,
    Loss,
    Metric,
    Teacher,
    loss_named,
)
from morph.training.mesh import (
    any_of,
    check_divisible,
    data_mesh,
    from_first,
    is_first,
    local,
    replicated,
    split,
)
from morph.training.step import (
    Step,
    TrainState,
    check_finite,
    loops_well,
    make_step,
)
from regularizers.channels.trace import trace_channels
from regularizers.objective.proximal import proximal

NAMES = {"seed": "seed", "uniform": "uniform", "tensorize": "tensorized and fine-tuned"}


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


@dataclass(kw_only=True)
class Cycle:
    """A run over a working directory.

    Attributes:
        network: the seed network.
        train: training examples, whole, which are kept on the device; or a pipeline of batches.
        test: test examples, whole.
        config: how to learn.
        workdir: where everything goes; the same one resumes.
        identity: plain JSON that tells this run from others (network, data); it is kept in the
            report, and a working directory of another identity is refused.
        loss: `(logits, y) -> scalar`; the one that `config` names if None. Functions that are given
            here instead of by name should be told apart in `identity`.
        metrics: `{name: (logits, y) -> scalar}` of whole sets, the larger the better; those that
            `config` names if None. The first is what `config.patience` goes by.
        optimizer: `(learning rate by the step of a phase, config) -> optax transformation`.
        augment: `(key, x) -> x` on a training batch, compiled into the step; those that `config`
            names if None.
        listener: hears how it goes.
        look_every: steps between two looks of the budget controller.
        mesh: the devices that share every batch; all of all processes if None.
        checkpoint_seconds: a checkpoint is left at least this often; None for at phases' ends only.
        checkpoint_steps: and after this many steps; both hold at the next look.
    """

    network: Network
    train: Batch | Pipeline
    test: Batch
    config: CycleConfig
    workdir: Path
    identity: Mapping[str, Any] = field(default_factory=dict)
    loss: Loss | None = None
    metrics: Mapping[str, Metric] | None = None
    optimizer: Callable[[optax.Schedule, CycleConfig], optax.GradientTransformation] = (
        configured_optimizer
    )
    augment: Augmentation | None = None
    listener: Listener = field(default_factory=Silence)
    look_every: int = 10
    mesh: Mesh | None = None
    checkpoint_seconds: float | None = 60.0
    checkpoint_steps: int | None = None

    @property
    def phases(self) -> tuple[Phase, ...]:
        """All phases, in order."""
        return phases_of(self.config)

    def run(self) -> Result:
        """Runs or resumes all phases; in every process of a run alike.

        Raises:
            BudgetError: before any training, if a budget cannot be met.
            MeshError: if a batch cannot be cut evenly over the devices.
            WorkdirError: if the working directory belongs to another run, is used by one, or cannot
                be written; the last checkpoint stays.
            TrainingDivergedError: if the loss is not finite; the last checkpoint stays.
            Interrupted: after SIGINT or SIGTERM; a checkpoint is left.
        """
        if is_first():
            return self._run()
        with tempfile.TemporaryDirectory() as scratch:  # what others write is of no use
            return replace(self, workdir=Path(scratch), listener=Silence())._run()

    def _run(self) -> Result:
        self._check()
        self._seed_variables = jax.eval_shape(self.network.init, self._key(0), self._x)
        self._seed_graph = trace_channels(self.network.predict, self._seed_variables, self._x)
        self._seed_cost = target_cost(self.config, self._seed_graph)
        self._prices = Prices(
            network=self.network,
            graph=self._seed_graph,
            variables=self._seed_variables,
            x=self._x,
            target=partial(target_cost, self.config),
        )
        check_config(self.config, self._seed_cost, self._seed_graph)
        self._mesh = data_mesh() if self.mesh is None else self.mesh
        if isinstance(self.train, Batch):
            check_divisible(self.config.batch_size, self._mesh)
        with ExitStack() as held:
            resumed = from_first(partial(self._claim, held))
            self._data = replicated(resident(self.train), self._mesh)
            self._evaluator = Evaluator(replicated(self.test, self._mesh))
            self._step = self._make_step()
            self.listener.seed(self._seed_graph.widths)
            checkpoints = Checkpoints(self.workdir)
            held.callback(checkpoints.close)
            return self._run_phases(checkpoints, checkpoints.newest() if resumed else None)

    def _claim(self, held: ExitStack) -> bool:
        """Takes the working directory for this run; True if it is resumed."""
        held.enter_context(locked(self.workdir))
        return claim_workdir(self.workdir, {**self.identity, **asdict(self.config)})

    def _run_phases(self, checkpoints: Checkpoints, saved: Saved | None) -> Result:
        carried = Carried(architecture=Architecture.of_seed(self._seed_graph))
        variables: Variables | None = None
        first = start = 0
        if saved is not None:
            first, start = saved.progress["phase"], saved.progress["step"]
            carried = carried_from_json(saved.progress["carried"])
            like = carried.architecture.abstract(self._seed_variables)
            if start == 0:
                variables = jax.tree.map(jnp.asarray, saved.into(like))
            else:  # they come with the rest of the state, below
                variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
        drop_records(self._records, first, start)
        interval = Interval(seconds=self.checkpoint_seconds, steps=self.checkpoint_steps)
        with stop_on_signals() as stopped:
            for i in range(first, len(self.phases)):
                if carried.converged:
                    break
                trainer = self._prepare(i, carried, variables)
                if start and saved is not None:
                    if trainer.shrinking is not None:
                        trainer.shrinking.strength = saved.progress["strength"]
                    arrays = saved.into(arrays_of(trainer.state))
                    trainer.state = trainer.state.replace(**arrays)
                interval.begin(start)
                for step in self._steps(i, trainer, start):
                    stop, due = any_of(stopped(), is_first() and interval.due(step))
                    if (stop or due) and step > interval.last_step:
                        strength = trainer.shrinking.strength if trainer.shrinking else 0.0
                        progress = progress_json(i, step, strength, carried)
                        self._save(checkpoints, arrays_of(trainer.state), progress)
                        interval.begin(step)
                    if stop:
                        checkpoints.wait()
                        raise Interrupted(
                            f"stopped at step {step} of phase {trainer.phase.name!r}; "
                            f"a checkpoint is in {self.workdir}"
                        )
                carried, variables = self._finish(trainer, carried)
                start = 0
                self._save(checkpoints, variables, progress_json(i + 1, 0, 0.0, carried))
        assert variables is not None  # there is always a seed phase
        checkpoints.wait()
        return self._result(carried, local(variables))

    def _save(self, checkpoints: Checkpoints, arrays: Any, progress: Mapping[str, Any]) -> None:
        """Leaves a checkpoint, and before it the records that it follows."""
        if self._records.exists():
            sync(self._records)
        checkpoints.save(arrays, progress)

    def _check(self) -> None:
        """Raises if the settings or the data make no sense."""
        check_training(self.config)
        check_data(self.train, self.test, self.config.batch_size)
        variables = jax.eval_shape(self.network.init, self._key(0), self._x)
        outputs = jax.eval_shape(self.network.predict, variables, self._x).shape[1:]
        if names_of(self.config.augment) and self._x.ndim != 4:
            raise DataError(
                f"augment is {self.config.augment!r}, which needs images [n, height, width, "
                f"channels]; inputs have shape {self._x.shape[1:]}"
            )
        if self.loss is None:  # only then is it known what it takes
            sets = {"test": self.test.y}
            if isinstance(self.train, Batch):
                sets["training"] = self.train.y
            for name, y in sets.items():
                check_labels(name, y, outputs, classes=self.config.loss == "cross_entropy")

    def _make_step(self) -> Step:
        c = self.config
        names = names_of(c.augment)
        return make_step(
            self.loss or loss_named(c.loss, c.label_smoothing),
            looped=loops_well(self._seed_graph),
            augment=self.augment or (augmented(names) if names else None),
            mixup_alpha=c.mixup,
            precision=c.precision,
            ema_decay=c.ema_decay,
            teacher=Teacher(
                predict=self.network.predict, weight=c.distill, temperature=c.distill_temperature
            )
            if c.distill
            else None,
        )

    def _prepare(self, i: int, carried: Carried, variables: Variables | None) -> Trainer:
        """The network, its variables and its optimizer at the start of a phase."""
        c, phase = self.config, self.phases[i]
        architecture = carried.architecture
        if phase.kind == "uniform":
            seed, variables = Architecture.of_seed(self._seed_graph), None
            architecture = expand(seed, self._seed_cost, self._expand_budget, round_to=c.round_to)
        network = self.network.resized(architecture)
        if variables is None:  # the first phase; all others get theirs from the one before
            variables = fresh(network, self._key(i), self._x)
        tx = self.optimizer(rate_of(c, i), c)
        shrinking: Shrinking | None = None
        if phase.kind == "shrink":
            graph = trace_channels(network.predict, variables, self._x)
            shrinking = begin(c, graph, variables, self._budget, phase.steps)
            tx = proximal(tx, shrinking.regularizer, shrinking.strength)
            if gated := shrinking.regularizer.gated:
                until = shrinking.controller.schedule.end
                network = gated_network(
                    network, shrinking.graph, gated, steps=until, mode=c.gate_mode
                )
                variables = with_gates(variables, shrinking.graph, gated)
        taught = c.distill and phase.kind in ("shrink", "retrain")
        trainer = Trainer(
            phase=phase,
            architecture=architecture,
            network=network,
            state=TrainState.of(
                network,
                variables,
                tx,
                averages=c.ema_decay > 0.0,
                teacher=self._teacher() if taught else None,
            ),
            predict=jax.jit(network.predict),
            shrinking=shrinking,
        )
        if shrinking is not None:  # protects from the first step on
            strengths = shrinking.measure(trainer.state.params)
            trainer.obey(shrinking.controller.look(0, strengths, shrinking.strength))
        return trainer

    def _teacher(self) -> Variables:
        """The trained seed's variables, as its phase left them."""
        return self._kept_variables("seed_variables", self._seed_variables)

    def _steps(self, i: int, trainer: Trainer, start: int) -> Iterator[int]:
        """Trains; yields the number of steps done after each chunk, and once before the first."""
        phase, c = trainer.phase, self.config
        self.listener.phase(phase.name, phase.steps)
        shrinking, key = trainer.shrinking, self._key(i)
        ends = chunk_ends(start, phase.steps, self.look_every)
        stream = chunks(
            self.train,
            c.batch_size,
            ends,
            start=start,
            seed=c.seed * 1000 + i,
            offset=sum(before.steps for before in self.phases[:i]),
            put=partial(split, mesh=self._mesh),
        )
        test_every = max(self.look_every, phase.steps // 5 // self.look_every * self.look_every)
        yield start
        for done, chunk in zip(ends, stream, strict=True):
            state, chunk = replicated(trainer.state, self._mesh), split(chunk, self._mesh)
            state, losses = self._step(state, self._data, chunk, key)
            trainer.state = replicated(state, self._mesh)
            metrics: dict[str, Any] = {"loss": float(losses.mean())}
            check_finite(metrics["loss"], step=done, phase=phase.name)
            if shrinking is not None:
                strengths = shrinking.measure(trainer.state.params)
                metrics |= self._look(trainer, shrinking, done, strengths)
                alive = {name: int((s > 0).sum()) for name, s in strengths.items()}
                self.listener.update(done, widths=alive)
            if done % test_every == 0 or done == phase.steps:
                logits = self._evaluator.logits(trainer.predict, trainer.state.learned)
                found = self._evaluator.metrics(logits, self._metrics)
                metrics |= {f"test_{name}": value for name, value in found.items()}
            self.listener.update(done, **metrics)
            record = {"phase": phase.name, "phase_index": i, "step": done, **metrics}
            with self._records.open("a") as file:
                file.write(json.dumps(record) + "\n")
            yield done

    def _look(
        self, trainer: Trainer, shrinking: Shrinking, step: int, strengths: Mapping[str, np.ndarray]
    ) -> dict[str, float]:
        """Lets the controller look and decide; what it saw, with costs over the seed's."""
        saliency = jax.device_get(trainer.state.opt_state.saliency)
        look = shrinking.controller.look(step, strengths, shrinking.strength, saliency)
        trainer.obey(look)
        scale = shrinking.regularizer.seed_cost / self._seed_cost()
        return {
            "cost_ratio": look.cost_ratio * scale,
            "target_ratio": look.target_ratio * scale,
            "strength": 0.0 if look.settled else look.strength,
        }

    def _finish(self, trainer: Trainer, carried: Carried) -> tuple[Carried, Variables]:
        """Measures the network at the end of its phase, and after a shrink phase resizes it.

        Returns:
            What is known, and the variables that the next phase starts from.
        """
        phase, variables = trainer.phase, trainer.state.learned
        steps = phase.steps + (carried.steps if phase.warm else 0)
        if trainer.shrinking is not None:
            return self._shrink(trainer, trainer.shrinking, replace(carried, steps=steps))
        logits = self._evaluator.logits(trainer.predict, variables)
        name = NAMES.get(phase.kind) or self._retrained(phase)
        outcome = self._measure(name, phase, trainer.architecture, logits, steps)
        carried = replace(carried, outcomes=(*carried.outcomes, outcome), steps=steps)
        if phase.kind == "seed" and self.config.distill:
            save_variables(self.workdir / "seed_variables", local(variables))
        if phase.kind == "retrain" and self.config.patience:
            carried = self._compare(carried, variables)
        if phase.kind == "uniform":
            variables = fresh(self.network, self._key(self._number(phase) + 1), self._x)
        following = self.phases[self._number(phase) + 1 :][:1]
        if following and following[0].kind == "tensorize":
            return self._tensorize(trainer, variables, carried)
        return carried, variables

    def _tensorize(
        self, trainer: Trainer, variables: Variables, carried: Carried
    ) -> tuple[Carried, Variables]:
        """Replaces kernels by tensor networks, and measures what that leaves."""
        c, architecture = self.config, carried.architecture
        variables = local(variables)
        graph = trace_channels(trainer.network.predict, variables, self._x)
        now = self._prices.at(architecture)["cost"]
        plan = tensorize_plan(
            graph,
            variables,
            kind=tensor_kinds(c),
            budget=parse_budget(c.tensorize_budget, self._seed_cost) / now,
            cost=partial(target_cost, c),
        )
        architecture = architecture.tensorized(plan.kernels)
        cores = plan.factorize(variables)
        network = self.network.resized(architecture)
        logits = self._evaluator.logits(jax.jit(network.predict), cores)
        outcome = self._measure("tensorized", trainer.phase, architecture, logits, carried.steps)
        carried = replace(carried, architecture=architecture, outcomes=(*carried.outcomes, outcome))
        return carried, cores

    def _retrained(self, phase: Phase) -> str:
        how = "fine-tuned" if phase.warm else "retrained"
        return how if self.config.expand_budget is None else f"expanded and {how}"

    def _compare(self, carried: Carried, variables: Variables) -> Carried:
        """Keeps a cycle that is the best so far; tells whether another is worth trying."""
        values = self._values(carried)
        if best_of(values) == len(values) - 1:
            self._save_final(carried, variables)
            from_first(partial(copy_kept, self.workdir, self.workdir / BEST))
        return replace(carried, converged=is_over(values, self.config.patience))

    def _values(self, carried: Carried) -> list[float]:
        """The first metric of every cycle's last network."""
        first = next(iter(self._metrics))
        others = (*NAMES.values(), "shrunk")
        return [o.metrics[first] for o in carried.outcomes if not o.name.startswith(others)]

    def _shrink(
        self, trainer: Trainer, shrinking: Shrinking, carried: Carried
    ) -> tuple[Carried, Variables]:
        """Trims to the budget, removes what is dead, compares with the dense network, expands."""
        c, variables = self.config, trainer.state.learned
        network = self.network.resized(trainer.architecture)
        predict = trainer.predict
        if shrinking.regularizer.gated:
            variables = folded(shrinking.graph, variables)
            predict = jax.jit(network.predict)
        params, budget = trainer.state.params, self._budget
        saliency = jax.device_get(trainer.state.opt_state.saliency)
        trim = trimmed(c, shrinking, network.predict, params, saliency, variables, budget, self._x)
        shrunk = carried.architecture.then(trim.step)
        dense_logits = self._evaluator.logits(predict, trim.masked)
        small_network = self.network.resized(shrunk)
        logits = self._evaluator.logits(jax.jit(small_network.predict), trim.small)
        outcome = replace(
            self._measure("shrunk", trainer.phase, shrunk, logits, carried.steps),
            logit_difference=float(
                np.abs(logits - dense_logits).max() / np.abs(dense_logits).max()
            ),
            same_predictions=bool((logits.argmax(-1) == dense_logits.argmax(-1)).all()),
        )
        carried = replace(carried, outcomes=(*carried.outcomes, outcome))
        self._with_report(shrunk, carried.outcomes).save(self.workdir / "shrunk.json")
        save_variables(self.workdir / "shrunk_variables", trim.small)
        following = self._number(trainer.phase) + 1
        key, warm = self._key(following), self.phases[following].warm
        wide, start = shrunk, trim.small
        if c.expand_budget is not None:
            graph = trace_channels(small_network.predict, trim.small, self._x)
            price = self._prices.of(shrunk)["cost"]
            step = widening(graph, shrunk, price, self._expand_budget, c.round_to, warm=warm)
            wide = shrunk.then(step)
            start = told_apart(step, step.take(trim.small), key) if warm else start
        if not warm:
            start = fresh(self.network.resized(wide), key, self._x)
        return replace(carried, architecture=wide), start

    def _number(self, phase: Phase) -> int:
        return self.phases.index(phase)

    @property
    def _budget(self) -> float:
        """What to shrink to, in the unit of the cost."""
        return parse_budget(self.config.budget, self._seed_cost)

    @property
    def _expand_budget(self) -> float:
        """What the final network may cost, in the unit of the cost."""
        c = self.config
        return parse_budget(
            c.budget if c.expand_budget is None else c.expand_budget, self._seed_cost
        )

    @property
    def _metrics(self) -> Mapping[str, Metric]:
        named = {name: METRICS[name] for name in names_of(self.config.metrics)}
        return named if self.metrics is None else self.metrics

    def _measure(
        self, name: str, phase: Phase, architecture: Architecture, logits: np.ndarray, steps: int
    ) -> Outcome:
        price = self._prices.at(architecture)
        metrics = self._evaluator.metrics(logits, self._metrics)
        return Outcome(
            name=name if phase.cycle == 0 else f"{name} {phase.cycle + 1}",
            accuracy=metrics.get("accuracy"),
            metrics=metrics,
            cost=price["cost"],
            flops=price["flops"],
            parameters=int(price["parameters"]),
            widths=architecture.widths,
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
                "cost": self._prices.at(architecture)["cost"],
                "budget": self._budget,
                "expand_budget": self._expand_budget,
                "config": asdict(self.config),
                "outcomes": [asdict(outcome) for outcome in outcomes],
                **self.identity,
            },
        )

    def _result(self, carried: Carried, variables: Variables) -> Result:
        values = self._values(carried)
        if self.config.patience and best_of(values) < len(values) - 1:
            from_first(partial(copy_kept, self.workdir / BEST, self.workdir))
            best = self._kept_architecture("architecture.json")
            carried = replace(carried, architecture=best)
            variables = self._kept_variables("variables")
        architecture = self._save_final(carried, variables)
        return Result(
            architecture=architecture,
            shrunk=self._kept_architecture("shrunk.json"),
            variables=variables,
            network=self.network.resized(architecture),
            outcomes=carried.outcomes,
        )

    def _kept_architecture(self, name: str) -> Architecture:
        """An architecture that process 0 wrote."""
        path = self.workdir / name
        return Architecture.from_json(from_first(lambda: Architecture.load(path).to_json()))

    def _kept_variables(self, name: str, like: Any = None) -> Variables:
        """Variables that process 0 wrote."""
        path = self.workdir / name
        found = from_first(lambda: jax.device_get(load_variables(path, like)))
        variables: Variables = jax.tree.map(jnp.asarray, found)
        return variables

    def _save_final(self, carried: Carried, variables: Variables) -> Architecture:
        """Writes what a run, or one of its cycles, ends with."""
        architecture = self._with_report(carried.architecture, carried.outcomes)
        if self.config.patience:
            stop = {
                "best_cycle": best_of(self._values(carried)) + 1,
                "stopped_early": carried.converged,
            }
            architecture = replace(architecture, report={**architecture.report, **stop})
        architecture.save(self.workdir / "architecture.json")
        save_variables(self.workdir / "variables", local(variables))
        return architecture

    @property
    def _records(self) -> Path:
        return self.workdir / "metrics.jsonl"

    @property
    def _x(self) -> Any:
        return jnp.asarray(self.test.x[:1])

    def _key(self, i: int) -> Any:
        # rbg: several times faster to compile than threefry, and as good for training.
        return jax.random.fold_in(jax.random.key(self.config.seed, impl="rbg"), i)
