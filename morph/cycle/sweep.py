"""Many runs as one compiled program: several budgets and seeds, side by side.

Runs that shrink the same seed network have the same shapes all the time: a channel that is dead is
zero, not absent. So their states are stacked [runs, ...], one step is mapped over them, and at
every look the budget controller sees each run alone and decides for it. Networks of other widths
train in the same program, too, as the seed network with the channels held at zero that they lack:
that is the same function (see `compact`), and what they become is cut out at the end.

Every run is what it would be alone; only the rounding of sums depends on its company.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from morph.architecture.architecture import Architecture
from morph.architecture.expand import expand
from morph.architecture.parts import FRESH
from morph.architecture.shrink import shrink
from morph.budget.controller import (
    Controller,
    Look,
    Schedule,
    strongest_within,
)
from morph.budget.prices import Prices
from morph.cycle.checks import check_config
from morph.cycle.config import CycleConfig, configured_optimizer, target_cost
from morph.cycle.listener import Listener, Silence
from morph.cycle.phases import rate_of
from morph.cycle.progress import Outcome
from morph.network import Network, Variables
from morph.resize.initialize import COMPILE_QUICKLY, FANS, infer_laws
from morph.training.data import Batch, chunk_ends, chunks
from morph.training.evaluate import Evaluator
from morph.training.step import (
    Loss,
    TrainState,
    check_finite,
    cross_entropy,
    loops_well,
    make_step,
)
from regularizers.channels.calls import flat_paths
from regularizers.channels.graph import ChannelGraph
from regularizers.channels.trace import trace_channels
from regularizers.costs.cost import Cost
from regularizers.objective.proximal import ProximalState, proximal
from regularizers.objective.regularizer import NetworkRegularizer

SEED, SHRINK, RETRAIN = range(3)  # the stages; randomness depends on them, as in a cycle's phases
STAGES = ("seed", "shrink", "retrain")
Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Member:
    """One run of a sweep: a budget, as a ratio to the seed's cost, and a random seed."""

    budget: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A network at the end of a stage.

    Attributes:
        architecture: relative to the seed network.
        variables: at its widths.
        accuracy: on the test examples, a share.
        records: of every look: phase, step, loss, and what the controller saw.
    """

    architecture: Architecture
    variables: Variables
    accuracy: float
    records: tuple[Record, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pulling:
    """What all shrinking shares: compiled once, however many runs there are.

    Attributes:
        regularizer: measures strengths and costs.
        strengths: of one run's parameters.
        strengths_of_all: of stacked parameters.
        tx: the proximal optimizer.
    """

    regularizer: NetworkRegularizer
    strengths: Callable[[Any], Any]
    strengths_of_all: Callable[[Any], Any]
    tx: optax.GradientTransformation


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Trains runs of one seed network together.

    Attributes:
        network: the seed network.
        train: training examples, whole; they are kept on the device.
        test: test examples, whole.
        config: how every run learns, but for its `budget` and `seed`.
        loss: `(logits, y) -> scalar`.
        optimizer: `(learning rate by the step of a stage, config) -> optax transformation`.
        listener: hears how it goes: losses are means over the runs.
        look_every: steps between two looks.

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
    test: Batch
    config: CycleConfig
    loss: Loss = cross_entropy
    optimizer: Callable[[optax.Schedule, CycleConfig], optax.GradientTransformation] = (
        configured_optimizer
    )
    listener: Listener = field(default_factory=Silence)
    look_every: int = 10

    def check(self, budgets: Sequence[float]) -> None:
        """Raises unless every budget can be met.

        Raises:
            ConfigError: naming the setting. BudgetError: if a budget is out of reach.
        """
        for budget in budgets:
            own = replace(self.config, budget=budget, expand_budget=budget)
            check_config(own, self.cost, self.graph)

    def train_seeds(self, seeds: Sequence[int]) -> list[Trained]:
        """The seed network, once for every random seed."""
        variables = [self._drawn(seed, SEED) for seed in seeds]
        states = _stacked([TrainState.of(self.network, v, self._seed_tx) for v in variables])
        states, records = self._run(states, SEED, seeds, self.config.seed_steps)
        return [
            self._trained(self.whole, one.variables, own)
            for one, own in zip(_unstacked(states, len(seeds)), records, strict=True)
        ]

    def pulling(self, reference: Variables) -> Pulling:
        """What pulls on channels, the same in all runs.

        Args:
            reference: a trained seed network's variables, whose mean strengths are the unit: a wide
                layer's weights are smaller, and not worth less. It is one for all random seeds, so
                that no run depends on its company.
        """
        c = self.config
        regularizer = NetworkRegularizer(
            self.graph, self.cost, c.penalty, threshold=0.0, relative_to=reference
        )
        optimizer = self.optimizer(self._rate(SHRINK), c)
        return Pulling(
            regularizer=regularizer,
            strengths=jax.jit(regularizer.strengths),
            strengths_of_all=jax.jit(jax.vmap(regularizer.strengths)),
            tx=proximal(optimizer, regularizer, strength=0.0),
        )

    def shrink(
        self, members: Sequence[Member], trained: Mapping[int, Variables], pulling: Pulling
    ) -> list[Trained]:
        """Shrinks the trained seed network to every budget.

        Args:
            members: the runs.
            trained: the seed network's variables, by random seed.
            pulling: what all share, see there.
        """
        c = self.config
        controllers = [self._controller(pulling, member.budget) for member in members]
        first = {
            seed: jax.device_get(pulling.strengths(variables["params"]))
            for seed, variables in trained.items()
        }
        force = [
            controller.initial_strength(first[member.seed])
            for controller, member in zip(controllers, members, strict=True)
        ]
        states = _stacked(
            [TrainState.of(self.network, trained[member.seed], pulling.tx) for member in members]
        )

        def seen_of(states: TrainState) -> list[list[Any]]:
            both = pulling.strengths_of_all(states.params), states.opt_state.saliency
            return [_unstacked(one, len(members)) for one in jax.device_get(both)]

        def look(states: TrainState, step: int) -> tuple[TrainState, list[Look]]:
            seen, saliency = seen_of(states)
            looks = []
            for i, controller in enumerate(controllers):
                looks.append(controller.look(step, seen[i], force[i], saliency[i]))
                force[i] = looks[i].strength
            return states.replace(opt_state=_obeyed(states.opt_state, looks)), looks

        states, _ = look(states, 0)  # protects from the first step on
        seeds = [member.seed for member in members]
        states, records = self._run(states, SHRINK, seeds, c.shrink_steps, look)
        seen, saliency = seen_of(states)
        shrunk = []
        for i, one in enumerate(_unstacked(states, len(members))):
            keep = strongest_within(
                self.cost,
                pulling.regularizer.worth(seen[i], saliency[i]),
                members[i].budget * self.cost(),
                min_width=c.min_width,
                fill=True,
            )
            architecture = shrink(self.graph, keep, min_width=c.min_width)
            shrunk.append(self._trained(architecture, one.variables, records[i]))
        return shrunk

    def uniform(self, budget: float) -> Architecture:
        """The seed network with one width multiplier, at most at a budget (a ratio)."""
        widths = expand(self.whole, self.cost, budget * self.cost(), round_to=self.config.round_to)
        return self.whole.with_parents(
            {name: group.parents for name, group in widths.groups.items()},
            width_multiplier=widths.width_multiplier,
        )

    def can_mask(self, architecture: Architecture) -> bool:
        """Whether the seed network with channels held at zero is that network."""
        exact = {group.group for group in self.regularizer.groups}
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
        c = self.config
        tx = proximal(self.optimizer(self._rate(RETRAIN), c), self.regularizer, strength=0.0)
        states = []
        for architecture, seed in zip(architectures, seeds, strict=True):
            keep = self._kept(architecture)
            state = TrainState.of(
                self.network, self.graph.mask(self._fresh(architecture, seed), keep), tx
            )
            held = {name: jnp.asarray(~keep[name]) for name in state.opt_state.held}
            states.append(state.replace(opt_state=state.opt_state._replace(held=held)))
        trained, records = self._run(_stacked(states), RETRAIN, seeds, c.retrain_steps)
        return [
            self._trained(architecture, one.variables, own)
            for architecture, one, own in zip(
                architectures, _unstacked(trained, len(seeds)), records, strict=True
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
            initialise = jax.jit(network.init, compiler_options=COMPILE_QUICKLY)
            variables = initialise(self._key(seed, RETRAIN), self._x)
        tx = self.optimizer(self._rate(RETRAIN), c)
        states = _stacked([TrainState.of(network, variables, tx)])
        states, records = self._run(states, RETRAIN, [seed], c.retrain_steps)
        variables = _unstacked(states, 1)[0].variables
        logits = self._evaluator.logits(jax.jit(network.predict), variables)
        return Trained(
            architecture=architecture,
            variables=variables,
            accuracy=self._evaluator.accuracy(logits),
            records=tuple(records[0]),
        )

    def outcome(self, name: str, trained: Trained, steps: int) -> Outcome:
        """What came out, priced; `steps` are those that its weights have seen."""
        price = self._prices.at(trained.architecture)
        return Outcome(
            name=name,
            accuracy=trained.accuracy,
            cost=price["cost"],
            flops=price["flops"],
            parameters=int(price["parameters"]),
            widths=trained.architecture.widths,
            steps=steps,
            width_multiplier=trained.architecture.width_multiplier,
        )

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
        keys = jnp.stack([self._key(seed, stage) for seed in seeds])
        ends = chunk_ends(0, steps, self.look_every)
        streams = {
            seed: chunks(
                self.train, self.config.batch_size, ends, start=0, seed=seed * 1000 + stage
            )
            for seed in seeds
        }
        records: list[list[Record]] = [[] for _ in seeds]
        for done in ends:
            own = {seed: next(stream) for seed, stream in streams.items()}  # [steps, batch] each
            index = np.stack([own[seed] for seed in seeds])
            states, losses = self._step(states, self._data, index, keys)
            looks: list[Look] = []
            if look is not None:
                states, looks = look(states, done)
            means = np.asarray(losses).mean(1)
            for i, loss in enumerate(means.tolist()):
                check_finite(loss, step=done, phase=f"{name}, run {i + 1} of {len(means)}")
                records[i].append(
                    {"phase": name, "phase_index": stage, "step": done, "loss": loss}
                    | (_seen(looks[i]) if looks else {})
                )
            self.listener.update(done, loss=float(means.mean()))
        return states, records

    def _trained(
        self, architecture: Architecture, variables: Variables, records: Sequence[Record]
    ) -> Trained:
        """A network that was trained as the seed network with channels at zero, cut out."""
        masked = self.graph.mask(variables, self._kept(architecture))
        logits = self._evaluator.logits(self._predict, masked)
        return Trained(
            architecture=architecture,
            variables=architecture.take(masked),
            accuracy=self._evaluator.accuracy(logits),
            records=tuple(records),
        )

    def _kept(self, architecture: Architecture) -> dict[str, np.ndarray]:
        """Which of the seed's channels an architecture has, bool [width] by group."""
        keep = {}
        for name, group in architecture.groups.items():
            keep[name] = np.zeros(group.seed_width, bool)
            keep[name][list(group.parents)] = True
        return keep

    def _fresh(self, architecture: Architecture, seed: int) -> Variables:
        """The seed's own draw, scaled to what it would be at the architecture's widths.

        Numbers that are drawn independently are as good cut out of a larger array; only scales
        depend on fans (see `morph.resize.initialize`).
        """
        paths, leaves, treedef = flat_paths(self._drawn(seed, RETRAIN))
        scaled = []
        for path, leaf in zip(paths, leaves, strict=True):
            fan, variable = FANS.get(self._laws[path]), architecture.variables[path]
            if fan is not None:
                ratio = fan(variable, variable.shape) / fan(variable, architecture.shape(path))
                leaf = leaf * jnp.asarray(math.sqrt(ratio), leaf.dtype)
            scaled.append(leaf)
        return jax.tree.unflatten(treedef, scaled)

    def _rate(self, stage: int) -> optax.Schedule:
        """The learning rate of a stage; every retraining begins from scratch."""
        own = replace(self.config, baseline=False, cycles=1, final="scratch")
        return rate_of(own, stage)

    def _controller(self, pulling: Pulling, budget: float) -> Controller:
        steps = self.config.shrink_steps
        schedule = Schedule(
            budget_ratio=budget, start=steps // 20, end=int(steps * (1.0 - self.config.settle))
        )
        return Controller(
            regularizer=pulling.regularizer, schedule=schedule, min_width=self.config.min_width
        )

    def _drawn(self, seed: int, stage: int) -> Variables:
        return self._initialise(self._key(seed, stage), self._x)

    def _key(self, seed: int, stage: int) -> Any:
        # rbg: several times faster to compile than threefry, and as good for training.
        return jax.random.fold_in(jax.random.key(seed, impl="rbg"), stage)

    # What is made once, for all runs.

    @cached_property
    def graph(self) -> ChannelGraph:
        """The seed network's channel graph."""
        abstract = jax.eval_shape(self.network.init, self._key(0, SEED), self._x)
        return trace_channels(self.network.predict, abstract, self._x)

    @cached_property
    def cost(self) -> Cost:
        """What is paid for."""
        return target_cost(self.config, self.graph)

    @cached_property
    def regularizer(self) -> NetworkRegularizer:
        """What may be pulled on, and held at zero."""
        return NetworkRegularizer(self.graph, self.cost, self.config.penalty, threshold=0.0)

    @cached_property
    def whole(self) -> Architecture:
        """The seed network's architecture."""
        return Architecture.of_seed(self.graph)

    @cached_property
    def _prices(self) -> Prices:
        return Prices(
            network=self.network,
            graph=self.graph,
            variables=jax.eval_shape(self.network.init, self._key(0, SEED), self._x),
            x=self._x,
            target=partial(target_cost, self.config),
        )

    @cached_property
    def _x(self) -> Any:
        return jnp.asarray(self.train.x[:1])

    @cached_property
    def _data(self) -> Batch:
        return Batch(*map(jnp.asarray, self.train))

    @cached_property
    def _evaluator(self) -> Evaluator:
        return Evaluator(Batch(*map(jnp.asarray, self.test)))

    @cached_property
    def _initialise(self) -> Callable[..., Variables]:
        return jax.jit(self.network.init, compiler_options=COMPILE_QUICKLY)

    @cached_property
    def _laws(self) -> dict[str, str]:
        return infer_laws(self.network.init, self.whole, (self._x,))

    @cached_property
    def _predict(self) -> Callable[..., Any]:
        return jax.jit(self.network.predict)

    @cached_property
    def _seed_tx(self) -> optax.GradientTransformation:
        return self.optimizer(self._rate(SEED), self.config)

    @cached_property
    def _step(self) -> Callable[..., tuple[TrainState, Any]]:
        """The step of training, mapped over states, indices [runs, steps, batch] and keys."""
        looped = loops_well(self.graph)
        mapped = jax.vmap(make_step(self.loss, looped=looped), in_axes=(0, None, 0, 0))
        return jax.jit(mapped, donate_argnums=0) if looped else mapped


def _seen(look: Look) -> Record:
    """What a controller saw, for a record; costs over the seed's."""
    return {
        "cost_ratio": look.cost_ratio,
        "target_ratio": look.target_ratio,
        "strength": 0.0 if look.settled else look.strength,
    }


def _obeyed(states: ProximalState, looks: Sequence[Look]) -> ProximalState:
    """The stacked states of the optimizer with what was decided for each run."""
    each = [look.obeyed(states) for look in looks]
    return states._replace(
        strength=jnp.stack([one.strength for one in each]),
        protected=_stacked([one.protected for one in each]),
        held=_stacked([one.held for one in each]),
    )


def _stacked(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _unstacked(tree: Any, count: int) -> list[Any]:
    return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(count)]
