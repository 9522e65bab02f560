"""Many runs as one compiled program: several budgets and seeds, side by side.

Runs that shrink the same seed network have the same shapes all the time: a channel that is dead is
zero, not absent. So their states are stacked [runs, ...], one step is mapped over them, and at
every look the budget controller sees each run alone and decides for it. Networks of other widths
train in the same program, too, as the seed network with the channels held at zero that they lack:
that is the same function (see `compact`), and what they become is cut out at the end.

Every run is what it would be alone; only the rounding of sums depends on its company.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from morph.architecture.architecture import Architecture
from morph.architecture.expand import expand
from morph.architecture.parts import FRESH
from morph.budget.controller import Look
from morph.budget.prices import Prices
from morph.budget.traces import Traces
from morph.cycle.arguments import check_interval
from morph.cycle.asked import configured_optimizer, target_cost
from morph.cycle.checks import check_config, check_side_by_side, check_structure
from morph.cycle.config import CycleConfig
from morph.cycle.context import key_of
from morph.cycle.cut import Measuring
from morph.cycle.given import Start, fitted, read_start
from morph.cycle.listener import Listener, Silence
from morph.cycle.measure import Measure
from morph.cycle.members import Member, Pulling, Record, Trained, kept, seen, stacked, unstacked
from morph.cycle.progress import Outcome
from morph.cycle.recipe import Recipe
from morph.cycle.shrinking import (
    Trimmed,
    make_budget,
    make_regularizer,
    regularizer_of_rest,
)
from morph.cycle.stamp import stamp_of
from morph.cycle.starts import fresh, scaled_to
from morph.cycle.watch import Watch
from morph.errors import DataError
from morph.network import Network, Variables
from morph.resize.initialize import COMPILE_QUICKLY, infer_laws
from morph.training.data import Batch, on_device
from morph.training.evaluate import Evaluator
from morph.training.loop import Course, Loop
from morph.training.step import Step, TrainState, loops_well
from morph.training.task import Task
from regularizers.channels.graph import ChannelGraph
from regularizers.costs.cost import Cost
from regularizers.objective.proximal import proximal
from regularizers.objective.regularizer import NetworkRegularizer

SEED, SHRINK, RETRAIN = range(3)  # the stages; randomness depends on them, as in a cycle's phases
STAGES = ("seed", "shrink", "retrain")


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Trains runs of one seed network together.

    Attributes:
        network: the seed network.
        train: training examples, whole; they are kept on the device.
        test: test examples, as of a `Cycle`.
        config: how every run learns, but for its `budget` and `seed`; what a sweep has no use for
            is refused.
        start, task, optimizer: as of a `Cycle`.
        listener: hears how it goes: losses are means over the runs.
        look_every: steps between two looks.

    Raises:
        ConfigError: naming a setting that makes no sense, or that a sweep has no use for.

    Example:
        >>> sweep = Sweep(network=network, train=train, test=test, config=CycleConfig())
        ...     # doctest: +SKIP
        >>> seeds = sweep.train_seeds([0])                                  # doctest: +SKIP
        >>> members = [Member(budget=b, seed=0) for b in (0.5, 0.25)]       # doctest: +SKIP
        >>> pulling = sweep.pulling(seeds[0].variables)                     # doctest: +SKIP
        >>> shrunk = sweep.shrink(members, {0: seeds[0].variables}, pulling)  # doctest: +SKIP
    """

    network: Network
    train: Batch
    test: Batch | Iterable[Batch]
    config: CycleConfig
    start: Start | None = None
    task: Task = field(default_factory=Task)
    optimizer: Callable[[optax.Schedule, CycleConfig], optax.GradientTransformation] = (
        configured_optimizer
    )
    listener: Listener = field(default_factory=Silence)
    look_every: int = 10

    def __post_init__(self) -> None:
        """Refuses what it would have to ignore."""
        check_side_by_side(self.config)
        check_interval("look_every", self.look_every)
        if self.start is not None:
            object.__setattr__(self, "config", replace(self.config, seed_steps=0))

    def check(self, budgets: Sequence[float]) -> None:
        """Raises unless every budget can be met.

        Raises:
            ConfigError: naming the setting. BudgetError: if a budget is out of reach. DataError.
        """
        self.recipe.check(self.network, self.train, self.test)
        if not isinstance(self.train, Batch):
            raise DataError("runs side by side train on a whole set: give a morph.Batch")
        for budget in budgets:
            own = replace(self.config, budget=budget)
            check_structure(own, self.graph, started=self.start is not None)
            check_config(own, self.cost, self.graph)

    def train_seeds(self, seeds: Sequence[int]) -> list[Trained]:
        """The seed network, once for every random seed; given weights are all the same."""
        if self.start is not None:
            return [self.tested(self.whole, self._given)] * len(seeds)
        variables = [self._drawn(seed, SEED) for seed in seeds]
        states = stacked([self._state(v, self._seed_tx) for v in variables])
        states, records = self._run(states, SEED, seeds, self.config.seed_steps)
        return [
            self._trained(self.whole, one.learned, own)
            for one, own in zip(unstacked(states, len(seeds)), records, strict=True)
        ]

    def pulling(self, reference: Variables) -> Pulling:
        """What pulls on channels, the same in all runs.

        Args:
            reference: a trained seed network's variables, whose mean strengths are the unit: a wide
                layer's weights are smaller, and not worth less. It is one for all random seeds, so
                that no run depends on its company.
        """
        c = self.config
        regularizer = make_regularizer(c, self.graph, self.cost, reference=reference)
        # How fast channels decay does not depend on the budget.
        steps, every = c.shrink_steps, self.look_every
        budget = make_budget(c, regularizer, self.cost.seed, steps, every, last=True)
        tx = budget.optimizer(self.recipe.transformation(SHRINK))
        return Pulling.of(regularizer, reference, tx)

    def shrink(
        self, members: Sequence[Member], trained: Mapping[int, Variables], pulling: Pulling
    ) -> list[Trained]:
        """Shrinks the trained seed network to every budget.

        Args:
            members: the runs.
            trained: the seed network's variables, by random seed.
            pulling: what all share, see there.
        """
        rest = regularizer_of_rest(self.config, self.traces, self.whole, pulling.reference)
        watch = Watch.of(
            self.config,
            [(member.budget * self.cost(), key_of(member.seed, SHRINK)) for member in members],
            pulling,
            Measuring(
                objective=self.recipe.objective(self.traces),
                regularizer=pulling.regularizer,
                loop=self._loop,
            ),
            rest,
        )
        states = stacked([self._state(trained[member.seed], pulling.tx) for member in members])
        states, _ = watch.look(states, 0)  # protects from the first step on
        seeds = [member.seed for member in members]
        states, records = self._run(states, SHRINK, seeds, self.config.shrink_steps, watch.look)
        saliency = watch.saliency(states)
        trained_now = unstacked(states, len(members))
        return [
            self._shrunk(
                Trimmed.of(cut.budget.landed(one.params, minded, rest), self.graph, one.learned),
                own,
            )
            for cut, one, minded, own in zip(
                watch.cuts, trained_now, saliency, records, strict=True
            )
        ]

    def uniform(self, budget: float) -> Architecture:
        """The seed network with one width multiplier, at most at a budget (a ratio)."""
        widths = expand(self.whole, self.cost, budget * self.cost(), round_to=self.config.round_to)
        return self.whole.with_parents(
            {name: group.parents for name, group in widths.groups.items()},
            width_multiplier=widths.width_multiplier,
        )

    def can_mask(self, architecture: Architecture) -> bool:
        """Whether the seed network with channels held at zero is that network."""
        exact = {group.group for group in self._holding.groups}
        fresh = any(FRESH in group.parents for group in architecture.groups.values())
        return architecture.resized <= exact and not fresh and not architecture.removed

    def retrain(
        self, architectures: Sequence[Architecture], seeds: Sequence[int], *, masked: bool = True
    ) -> list[Trained]:
        """Trains networks from scratch, `config.retrain_steps` each.

        Args:
            architectures: what to train, relative to the seed network.
            seeds: the random seed of each.
            masked: all together, as the seed network with channels held at zero; those for which
                that is not the same network, or all if False, are trained in turn at their widths.
        """
        together = [i for i, one in enumerate(architectures) if masked and self.can_mask(one)]
        found: dict[int, Trained] = {}
        if together:
            chosen = [architectures[i] for i in together], [seeds[i] for i in together]
            found = dict(zip(together, self._retrain_masked(*chosen), strict=True))
        for i, (architecture, seed) in enumerate(zip(architectures, seeds, strict=True)):
            if i not in found:
                found[i] = self.train_one(architecture, seed)
        return [found[i] for i in range(len(architectures))]

    def _retrain_masked(
        self, architectures: Sequence[Architecture], seeds: Sequence[int]
    ) -> list[Trained]:
        tx = proximal(self.recipe.transformation(RETRAIN), self._holding, strength=0.0)
        states = []
        for architecture, seed in zip(architectures, seeds, strict=True):
            keep = kept(architecture)
            state = self._state(self.graph.mask(self._fresh(architecture, seed), keep), tx)
            held = {name: jnp.asarray(~keep[name]) for name in state.opt_state.held}
            states.append(state.replace(opt_state=state.opt_state._replace(held=held)))
        trained, records = self._run(stacked(states), RETRAIN, seeds, self.config.retrain_steps)
        return [
            self._trained(architecture, one.learned, own)
            for architecture, one, own in zip(
                architectures, unstacked(trained, len(seeds)), records, strict=True
            )
        ]

    def train_one(
        self, architecture: Architecture, seed: int, variables: Variables | None = None
    ) -> Trained:
        """Trains one network at its own widths, `config.retrain_steps`.

        Args:
            architecture: relative to the seed network.
            seed: of everything random.
            variables: to start from, at the architecture's widths; drawn if None.
        """
        c = self.config
        network = self.network.resized(architecture)
        if variables is None and self.can_mask(architecture):  # the same draw as masked
            variables = architecture.take(self._fresh(architecture, seed))
        elif variables is None:
            variables = fresh(network, key_of(seed, RETRAIN), self.traces.x)
        tx = self.recipe.transformation(RETRAIN)
        states = stacked([self.recipe.state(network, variables, tx)])
        states, records = self._run(states, RETRAIN, [seed], c.retrain_steps)
        return self.tested(architecture, unstacked(states, 1)[0].learned, records[0])

    def tested(
        self, architecture: Architecture, variables: Variables, records: Sequence[Record] = ()
    ) -> Trained:
        """A network at its own widths, measured."""
        predict = jax.jit(self.network.resized(architecture).predict)
        return Trained(
            architecture=architecture,
            variables=variables,
            metrics=self._metrics(predict, variables),
            records=tuple(records),
        )

    def outcome(self, name: str, trained: Trained, steps: int) -> Outcome:
        """What came out, priced; `steps` are those that its weights have seen."""
        return self._measure.outcome(name, trained.architecture, trained.metrics, steps)

    def _run(
        self,
        states: TrainState,
        stage: int,
        seeds: Sequence[int],
        steps: int,
        look: Callable[[TrainState, int], tuple[TrainState, list[Look]]] | None = None,
    ) -> tuple[TrainState, list[list[Record]]]:
        """Trains all runs; the records of each."""
        name = STAGES[stage]
        self.listener.phase(f"{name}, {len(seeds)} together" if len(seeds) > 1 else name, steps)
        course = Course(
            name=name,
            steps=steps,
            key=jnp.stack([key_of(seed, stage) for seed in seeds]),
            shuffle=[seed * 1000 + stage for seed in seeds],
        )
        records: list[list[Record]] = [[] for _ in seeds]
        for done in self._loop.run(states, course, look):
            states = done.state
            for i, loss in enumerate(done.loss.tolist()):
                told = {"phase": name, "phase_index": stage, "step": done.step, "loss": loss}
                told |= {f"loss_{term}": float(each[i]) for term, each in done.terms.items()}
                records[i].append(told | (seen(done.seen[i]) if done.seen else {}))
            self.listener.update(done.step, loss=float(done.loss.mean()))
        return states, records

    def _trained(
        self, architecture: Architecture, variables: Variables, records: Sequence[Record]
    ) -> Trained:
        """A network that was trained as the seed network with channels at zero, cut out."""
        return self._shrunk(Trimmed.of(architecture, self.graph, variables), records)

    def _shrunk(self, trim: Trimmed, records: Sequence[Record]) -> Trained:
        """A network that was cut out of the seed network."""
        return Trained(
            architecture=trim.step,
            variables=trim.small,
            metrics=self._metrics(self._predict, trim.masked),
            records=tuple(records),
        )

    def _metrics(self, predict: Callable[..., Any], variables: Variables) -> dict[str, float]:
        return self._measure.of(predict, variables)

    def _fresh(self, architecture: Architecture, seed: int) -> Variables:
        """The seed's own draw, scaled to what it would be at the architecture's widths."""
        return scaled_to(architecture, self._drawn(seed, RETRAIN), self._laws)

    def _state(self, variables: Variables, tx: optax.GradientTransformation) -> TrainState:
        return self.recipe.state(self.network, variables, tx)

    def _drawn(self, seed: int, stage: int) -> Variables:
        return self._initialise(key_of(seed, stage), self.traces.x)

    # What is made once, for all runs.
    @cached_property
    def recipe(self) -> Recipe:
        """How networks are trained."""
        config = replace(self.config, final="scratch")  # so a retrain stage has its own rates
        return Recipe(config=config, task=self.task, optimizer=self.optimizer)

    @cached_property
    def traces(self) -> Traces:
        """The seed network, and the channel graph of all that become of it."""
        example = on_device(self.train.rows(slice(0, 1)))
        return Traces.of_seed(self.network, key_of(0, SEED), example.x)

    @property
    def graph(self) -> ChannelGraph:
        """The seed network's channel graph."""
        return self.traces.graph

    @cached_property
    def cost(self) -> Cost:
        """What is paid for."""
        return target_cost(self.config, self.graph)

    @cached_property
    def whole(self) -> Architecture:
        """The seed network's architecture."""
        return Architecture.of_seed(self.graph)

    @property
    def start_identity(self) -> dict[str, str]:
        """What tells given weights from others; nothing if the seed is trained."""
        return {} if self.start is None else {"start_fingerprint": stamp_of(self._given)}

    @cached_property
    def _given(self) -> Variables:
        assert self.start is not None
        return fitted(read_start(self.start), self.traces.variables)

    @cached_property
    def _holding(self) -> NetworkRegularizer:
        """What may be held at zero: every group, whatever pulls on it."""
        return NetworkRegularizer(self.graph, self.cost, "group_lasso", threshold=0.0)

    @cached_property
    def _measure(self) -> Measure:
        target = partial(target_cost, self.config)
        return Measure(
            prices=Prices(traces=self.traces, target=target),
            evaluator=Evaluator(self.test, self.recipe.metrics),
        )

    @cached_property
    def _loop(self) -> Loop:
        return Loop(
            step=self._step,
            data=self.train,
            batch_size=self.config.batch_size,
            every=self.look_every,
        )

    @cached_property
    def _initialise(self) -> Callable[..., Variables]:
        return jax.jit(self.network.init, compiler_options=COMPILE_QUICKLY)

    @cached_property
    def _laws(self) -> dict[str, str]:
        return infer_laws(self.network.init, self.whole, (self.traces.x,))

    @cached_property
    def _predict(self) -> Callable[..., Any]:
        return jax.jit(self.network.predict)

    @cached_property
    def _seed_tx(self) -> optax.GradientTransformation:
        return self.recipe.transformation(SEED)

    @cached_property
    def _step(self) -> Step:
        """The step of training, mapped over states, indices [runs, steps, batch] and keys."""
        mapped = jax.vmap(self.recipe.step(self.traces), in_axes=(0, None, 0, 0))
        step: Step = jax.jit(mapped, donate_argnums=0) if loops_well(self.graph) else mapped
        return step
