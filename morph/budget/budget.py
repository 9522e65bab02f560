"""A budget for a training loop of one's own: what pulls on channels, who looks, what is kept.

    budget = morph.Budget(regularizer, "50%", steps=1000)
    tx = budget.optimizer(optax.adam(1e-3))
    state = budget.look(step, params, state)  # in the loop
    architecture = budget.finish(params, state)

The shrink phase of `morph.Cycle` is this object in a loop of Morph's own.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from morph.architecture.architecture import Architecture, names_in
from morph.architecture.shrink import shrink
from morph.budget.amounts import Amount, floors_of, parse_smaller
from morph.budget.controller import Controller, Look, Schedule, check_feasible
from morph.budget.trim import strongest_within
from morph.errors import BudgetWarning
from morph.vocabulary import DECAY, THRESHOLD
from regularizers.checks import NAME, OPTIMIZER, a, by_name, checked, number, whole
from regularizers.costs.cost import Cost
from regularizers.errors import InputError
from regularizers.host import on_devices, on_host
from regularizers.messages import near
from regularizers.objective.proximal import ProximalState, check_state, proximal
from regularizers.objective.regularizer import NetworkRegularizer

SETTLE = {DECAY: 0.5, THRESHOLD: 0.3}  # of all steps: what is left to recover at the budget
DECAYED = 2.5  # the weakest channels of a group end at exp(-2.5) of what they would be
TURN = 10  # steps at most from one pull to the next, of that many at once
TURNS = 30  # at least, until the budget is due: each takes a small share then
SCORED = 20  # turns before the cut, in which channels that decay are scored
WARM = 20  # one part in so many of the steps passes before anything is to go

State = TypeVar("State")
# From what lost its silent blocks to the regularizer of the network that is left.
Rest: TypeAlias = Callable[[Architecture], NetworkRegularizer]

STEP = whole(least=0) | a(jax.Array, "a step as JAX counts it, e.g. state.step")


class Budget:
    """Shrinks a network to a budget while a loop of one's own trains it.

    Args:
        regularizer: of the network: what may shrink, and the cost that the budget is of.
        budget: a ratio to the network's cost (`0.5`, `"50%"`), or an amount (`"2ms"`, `"300KB"`).
        steps: of training, in which the network gets there; go on with the small one after them.
        every: steps between two looks.
        settle: the share of the steps that is left to recover at the budget; a half, or 0.3 where
            a threshold pulls.
        pull: `"decay"`: the network stays whole, all that carries a channel decays, the faster the
            weaker it is in its group (see `reg.proximal`), and what is least worth its cost is cut
            at once; or `"threshold"`: what is to go is pulled to exactly zero on the way, by what
            the regularizer measures. The former, but for gates, if None.
        min_width: no group gets narrower.
        floors: least widths by pattern, see `regularizers.patterns`.
        round_to: widths become multiples of it, in groups that are wider.

    Attributes:
        regularizer: as it was given.
        limit: the budget, in the unit of the cost.
        least: the least width of every group.
        seen: what the last look saw and decided; None before the first.

    Raises:
        BudgetError: if the budget is no amount, or out of reach; with what the cost is made of.

    Example:
        >>> budget = morph.Budget(regularizer, "50%", steps=1000)          # doctest: +SKIP
        >>> tx = budget.optimizer(optax.adam(1e-3))                        # doctest: +SKIP
    """

    @checked(
        regularizer=a(NetworkRegularizer, "a reg.NetworkRegularizer"),
        steps=whole(least=0),
        every=whole(least=1),
        settle=number(least=0.0, below=1.0),
        min_width=whole(least=1),
        floors=by_name(whole(least=1), "whole numbers of at least 1 by pattern"),
        pull=NAME,
        round_to=whole(least=1),
    )
    def __init__(
        self,
        regularizer: NetworkRegularizer,
        budget: float | str | Amount,
        *,
        steps: int,
        every: int = 10,
        settle: float | None = None,
        pull: str | None = None,
        min_width: int = 1,
        floors: Mapping[str, int] | None = None,
        round_to: int = 1,
    ) -> None:
        self.regularizer = regularizer
        self.limit = parse_smaller(budget, regularizer.cost)
        self.least = floors_of(regularizer.graph, min_width, floors)
        check_feasible(regularizer, self.limit, self.least, round_to)
        self.pull = _pull_of(regularizer, pull)
        self.seen: Look | None = None
        self._steps, self._last = steps, 0
        end = int(steps * (1.0 - (SETTLE[self.pull] if settle is None else settle)))
        self.controller = Controller(
            regularizer=regularizer,
            schedule=Schedule(
                budget_ratio=self.limit / regularizer.seed_cost,
                start=end - 1 if self.pull == DECAY else steps // WARM,
                end=end,
            ),
            every=every,
            min_width=self.least,
            round_to=round_to,
        )

    def __repr__(self) -> str:
        """What it comes to, and how it gets there."""
        limit = self.regularizer.cost.show(self.limit)
        return f"Budget({limit}, steps={self._steps}, pull={self.pull!r})"

    @checked(optimizer=OPTIMIZER)
    def optimizer(
        self, optimizer: optax.GradientTransformation
    ) -> optax.GradientTransformationExtraArgs:
        """An optimizer that pulls to zero what the looks decide; see `reg.proximal`.

        It measures and pulls in turns that divide the steps between two looks, many in a phase.
        """
        end, looks = self.controller.schedule.end, self.controller.every
        longest = max(1, min(TURN, end // TURNS))
        every = max(k for k in range(1, longest + 1) if looks % k == 0)
        if self.pull == THRESHOLD or end < 1:
            return proximal(optimizer, self.regularizer, strength=0.0, every=every)
        rate = 1.0 - math.exp(-DECAYED / end)

        def decay(step: Any) -> Any:
            return jnp.where(step < end, rate, 0.0)

        return proximal(
            optimizer,
            self.regularizer,
            strength=0.0,
            decay=decay,
            every=every,
            saliency_from=max(0, end - SCORED * every),
        )

    def cuts(self, step: int) -> bool:
        """Whether all that is to go is cut at a step, if it was not before."""
        return self.pull == DECAY and step >= self.controller.schedule.end

    @checked(step=STEP)
    def look(self, step: int | jax.Array, variables: Any, state: State) -> State:
        """The state of training with what is pulled on from now on.

        Call it after every step, outside of `jit`: it looks at the first call, then every so many
        steps, and at the last one; in between it returns the state as it is.

        Args:
            step: how many steps there have been.
            variables: the traced variables, or only their `params`; or the `nnx.Module`.
            state: of the optimizer, or what holds it: a `TrainState`, the state of a chain. An
                `nnx.Optimizer` is changed in place, and returned.

        Raises:
            InputError: if no state of `optimizer` is in what is given, or it is another network's.
            BudgetError: if the variables are not finite, or what was to go is still there after
                the schedule's end.
        """
        now = int(step)
        if self.seen is not None and now < self._steps:
            idle = self.pull == DECAY and now < self.controller.schedule.start
            if idle or 0 <= now - self._last < self.controller.every:
                return state  # while channels decay the network is whole: nothing to decide
        found = self._found(state, "look")
        saliency = {name: _plain(value) for name, value in found.saliency.items()}
        self.seen = self.controller.look(
            now, self.regularizer.measured(variables), on_host(saliency)
        )
        self._last = now
        return _with(state, self.seen)

    def finish(self, variables: Any, state: Any) -> Architecture:
        """What is kept: at most the budget, and as little less as the widths allow.

        Silent blocks go as a whole; what they cost at no width is still counted.

        Args:
            variables: as of `look`.
            state: likewise.

        Returns:
            The architecture: `architecture.take(variables)` slices the weights, and
            `morph.compact(fn, architecture)` is the function. It is the one that was trained, but
            for a `BudgetWarning`, which says that channels had to be cut that are still alive.

        Raises:
            InputError: as of `look`.
        """
        found = self._found(state, "finish")
        saliency = on_host({name: _plain(value) for name, value in found.saliency.items()})
        architecture = self.landed(variables, saliency)
        thresholds, alive = self.regularizer.thresholds, 0
        cut = []
        for name, s in self.regularizer.measured(variables).items():
            gone = np.setdiff1d(np.arange(len(s)), architecture.groups[name].parents)
            if living := int((s[gone] > thresholds[name]).sum()):
                alive += living
                cut.append(name)
        if cut:
            last = f"the last look was at step {self._last}" if self.seen else "there was no look"
            warnings.warn(
                f"{alive} of the channels that are cut, of {', '.join(map(repr, cut[:3]))}, are "
                "alive: without them the network computes something else. They are at zero from "
                f"step {self.controller.schedule.end} of {self._steps} on, and {last}: call "
                "budget.look after every step, and train that long, or pass a smaller steps=.",
                BudgetWarning,
                stacklevel=2,
            )
        return architecture

    def landed(
        self, variables: Any, saliency: Mapping[str, Any], rest: Rest | None = None
    ) -> Architecture:
        """What is kept, whether it is trained for that or not.

        Args:
            variables: as of `look`.
            saliency: of the channels; what `ProximalState` has.
            rest: if given, blocks that went are not in the price at all.
        """
        own = self.regularizer
        removed = own.silent_blocks(variables)
        if not removed or rest is None:
            gone = {name for block in removed for name in own.graph.blocks[block].groups}
            worth = own.worth(own.measured(variables), saliency)
            left = {name: values for name, values in worth.items() if name not in gone}
            kept = self._kept(own.cost.without(gone), left, self.least)
            return shrink(own.graph, kept, removed=removed)
        first = shrink(own.graph, {}, removed=removed)
        smaller = rest(first)
        names = names_in(first, Architecture.of_seed(smaller.graph))
        here = own.graph.mask(variables, {}, removed)
        worth = smaller.worth(
            smaller.measured(first.take(here)),
            {g.group: saliency[names.get(g.group, g.group)] for g in smaller.groups},
        )
        least = {name: self.least[names.get(name, name)] for name in smaller.graph.groups}
        return first.then(shrink(smaller.graph, self._kept(smaller.cost, worth, least)))

    def _kept(
        self, cost: Cost, worth: Mapping[str, np.ndarray], least: Mapping[str, int]
    ) -> dict[str, np.ndarray]:
        return strongest_within(
            cost,
            worth,
            self.limit,
            min_width=least,
            round_to=self.controller.round_to,
            fill=True,
        )

    def _found(self, state: Any, entry: str) -> ProximalState:
        """The one state of our optimizer that a tree holds.

        Raises:
            InputError: if there is none, several, or one of another network.
        """
        found = [node for node in jax.tree.leaves(state, is_leaf=_is_ours) if _is_ours(node)]
        if len(found) != 1:
            many = f"{len(found)} states" if found else "no state"
            raise InputError(
                f"{entry}: found {many} of budget.optimizer in what was given: make the optimizer "
                "as tx = budget.optimizer(tx), around all that changes the parameters, and give "
                "its state, the TrainState or the nnx.Optimizer"
            )
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(found[0].strength)):
            raise InputError(f"{entry} decides on the host: call it outside of jit")
        check_state(found[0], self.regularizer)
        return found[0]


def _pull_of(regularizer: NetworkRegularizer, pull: str | None) -> str:
    """How channels are brought to go.

    Raises:
        InputError: if there is no such way, or gates cannot go it.
    """
    gated = [g.group for g in regularizer.groups if not g.pull.scaled]
    if pull is None:
        return THRESHOLD if gated else DECAY
    if pull not in SETTLE:
        raise InputError(f"pull must be {DECAY!r} or {THRESHOLD!r}{near(pull, SETTLE)}")
    if pull == DECAY and gated:
        raise InputError(
            f"pull is {DECAY!r}, but {gated[0]!r} has gates, which are not weights and cannot "
            f"decay; give pull={THRESHOLD!r}, or another penalty"
        )
    return pull


def _is_ours(node: Any) -> bool:
    return isinstance(node, ProximalState)


def _plain(value: Any) -> Any:
    """An array, also one that NNX keeps in a variable."""
    return value.get_value() if isinstance(value, nnx.Variable) else value


def _with(state: State, look: Look) -> State:
    """The state with what was decided; of NNX, changed in place."""

    def decided(node: Any) -> Any:
        if not _is_ours(node):
            return node
        return jax.tree.map(_placed, node, look.obeyed(node), is_leaf=_is_variable)

    changed: State = jax.tree.map(decided, state, is_leaf=_is_ours)
    return state if isinstance(state, nnx.Pytree) else changed


def _is_variable(node: Any) -> bool:
    return isinstance(node, nnx.Variable)


def _placed(old: Any, new: Any) -> Any:
    """A new value where the old one is: in its variable of NNX, on its devices."""
    if new is old:
        return old
    if isinstance(old, nnx.Variable):
        old.set_value(_placed(old.get_value(), new))
        return old
    return on_devices(new, old.sharding) if old.committed else new
