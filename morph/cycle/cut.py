"""The one cut of a shrink phase in which channels decay: what goes is measured, then decided.

Scores of channels are the saliency of the network as it is. Whether a block goes, too, is tried:
the loss of the network that is cut with it is compared with that of the one cut without.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from morph.budget.budget import Budget, Rest
from morph.cycle.shrinking import Trimmed
from morph.training.data import Batch, nth
from morph.training.loop import Loop
from morph.training.saliency import make_saliency
from morph.training.step import Objective, TrainState
from regularizers.host import on_host
from regularizers.objective.regularizer import NetworkRegularizer

BATCHES = 32  # that saliency is measured on
TRIED = 8  # of them, that losses are measured on


@dataclass(frozen=True, kw_only=True, eq=False)
class Measuring:
    """What cuts are decided by; compiled once, for all runs side by side.

    Attributes:
        objective: what is minimised.
        regularizer: whose channels and blocks.
        loop: has the data.
    """

    objective: Objective
    regularizer: NetworkRegularizer
    loop: Loop

    @cached_property
    def saliency(self) -> Any:
        """See `make_saliency`."""
        return make_saliency(self.objective, self.regularizer)

    def loss(self, state: TrainState, seen: tuple[Batch | None, Any], key: Any) -> float:
        """The mean loss of a state over some batches."""
        data, chunk = seen
        count = min(TRIED, len(jax.tree.leaves(chunk)[0]))
        found = [float(self._loss(state, data, chunk, np.int32(i), key)) for i in range(count)]
        return float(np.mean(found))

    @cached_property
    def _loss(self) -> Callable[..., Any]:
        @jax.jit
        def loss(state: TrainState, data: Batch | None, chunk: Any, i: Any, key: Any) -> Any:
            own = jax.random.fold_in(key, i)
            return self.objective(state, nth(data, chunk, i), own)(state.params)[0]

        return loss


@dataclass(frozen=True, kw_only=True, eq=False)
class Cut:
    """The cut of one run.

    Attributes:
        budget: of the run.
        measuring: what it is decided by.
        rest: as of `Budget.landed`.
        key: of all that is random while measuring, also which batches of a whole set.
        offset: as of a `Course`.
    """

    budget: Budget
    measuring: Measuring
    rest: Rest
    key: Any
    offset: int = 0

    def __call__(self, state: TrainState, step: int) -> TrainState:
        """The state with the saliency of now, and without the blocks that are to go.

        Args:
            state: of training.
            step: of the phase; before the cut, and after it, nothing changes.
        """
        if not self.budget.cuts(step):  # asked at every look: nothing is fetched for it
            return state
        held = on_host(state.opt_state.held)
        if any(flags.any() for flags in held.values()):
            return state
        shuffle = int(jax.random.randint(self.key, (), 0, 2**31 - 1))
        seen = self.measuring.loop.sample(shuffle, BATCHES, offset=self.offset)
        saliency = self.measuring.saliency(state, *seen, self.key)
        removed = self._removed(state, saliency, seen)
        params = self._graph.mask(state.params, {}, removed)
        found = {name: jnp.asarray(values) for name, values in saliency.items()}
        return state.replace(params=params, opt_state=state.opt_state._replace(saliency=found))

    @property
    def _graph(self) -> Any:
        return self.measuring.regularizer.graph

    def _removed(self, state: TrainState, saliency: Any, seen: Any) -> list[str]:
        """The blocks that go: the more the better, from the one that the loss minds least on."""
        blocks = [one.block.name for one in self.measuring.regularizer.measures.blocks]
        minded = {name: self._loss(state, {}, [name], seen) for name in blocks}
        removed: list[str] = []
        least = self._cut_loss(state, saliency, removed, seen) if blocks else 0.0
        for name in sorted(minded, key=minded.__getitem__):
            if (loss := self._cut_loss(state, saliency, [*removed, name], seen)) >= least:
                break
            removed, least = [*removed, name], loss
        return removed

    def _cut_loss(self, state: TrainState, saliency: Any, removed: list[str], seen: Any) -> float:
        """The loss of what would be left, some blocks gone."""
        params = self._graph.mask(state.params, {}, removed)
        step = self.budget.landed(params, saliency, self.rest)
        alive = Trimmed.alive(step)
        return self._loss(state, alive, [block.name for block in step.removed], seen)

    def _loss(self, state: TrainState, alive: Any, removed: Collection[str], seen: Any) -> float:
        params = self._graph.mask(state.params, alive, removed)
        return self.measuring.loss(state.replace(params=params), seen, self.key)
