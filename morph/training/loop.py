"""The training loop: whatever trains, a run, a sweep, a compressed network, trains here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jaxtyping import Float

from morph.training.data import Batch, Parted, Pipeline, chunk_ends, chunks, is_large, resident
from morph.training.layout import Layout
from morph.training.mesh import part_here, rows_of, split
from morph.training.step import Step, TrainState, check_finite
from morph.training.task import total

# Sees the state after a chunk and the steps done; changes the state, and tells what it saw.
Look: TypeAlias = Callable[[TrainState, int], tuple[TrainState, Any]]


@dataclass(frozen=True, kw_only=True)
class Course:
    """One stretch of training, of one run or of several side by side.

    Attributes:
        name: of the stretch, for who reads an error.
        steps: how many.
        key: a JAX random key of each step's randomness; side by side one for each run, stacked.
        shuffle: the seed of the order of a whole set; side by side one for each run.
        start: the step that training goes on from.
        offset: the steps of the run before this stretch: where a pipeline goes on.
    """

    name: str
    steps: int
    key: Any
    shuffle: int | Sequence[int]
    start: int = 0
    offset: int = 0


class Done(NamedTuple):
    """Where training is after a chunk.

    Attributes:
        step: the steps done.
        state: after them, and after what a look changed.
        loss: the mean over the chunk; side by side that of each run.
        terms: likewise, of each term by name, if the loss has several.
        seen: what the look told; None without one.
    """

    step: int
    state: TrainState
    loss: Float[np.ndarray, " *runs"]
    terms: Mapping[str, Float[np.ndarray, " *runs"]]
    seen: Any


@dataclass(frozen=True, kw_only=True)
class Loop:
    """Trains any number of courses with one compiled step.

    Attributes:
        step: several training steps in one call; of stacked states for runs side by side.
        data: a whole set, which is kept on the devices unless it is large; or, for single runs, a
            pipeline. Of a large set, and of a pipeline of parts, a process reads what its devices
            need.
        batch_size: of a whole set.
        every: steps between two looks, which is what one call takes.
        layout: where the arrays of a single run lie; where they are if None.
    """

    step: Step
    data: Batch | Pipeline
    batch_size: int
    every: int = 10
    layout: Layout | None = None

    def run(self, state: TrainState, course: Course, look: Look | None = None) -> Iterator[Done]:
        """Trains, chunk by chunk.

        Args:
            state: where training is; it is donated.
            course: what to do.
            look: at the state after every chunk.

        Raises:
            TrainingDivergedError: if a loss is not finite. DataError: if a pipeline ends.
        """
        ends = chunk_ends(course.start, course.steps, self.every)
        for end, chunk in zip(ends, self._chunks(course, ends), strict=True):
            state, losses = self.step(self._laid(state), self._data, chunk, course.key)
            state = self._laid(state)
            means = jax.tree.map(lambda one: np.asarray(one.mean(-1)), losses)
            terms = means if isinstance(means, Mapping) else {}
            loss = np.asarray(total(means))
            for i, value in enumerate(loss.reshape(-1).tolist()):
                run = f", run {i + 1} of {loss.size}" if loss.ndim else ""
                check_finite(value, step=end, phase=course.name + run)
            seen = None
            if look is not None:
                state, seen = look(state, end)
            yield Done(end, state, loss, terms, seen)

    def last(self, state: TrainState, course: Course) -> TrainState:
        """Trains to the end; the state there."""
        for done in self.run(state, course):
            state = done.state
        return state

    def sample(self, seed: int, count: int, *, offset: int = 0) -> tuple[Batch | None, Any]:
        """Batches to measure on: the whole set and int [count, batch], or None and themselves.

        Args:
            seed: of the order of a whole set.
            count: how many.
            offset: where a pipeline goes on; its own training takes these batches later, too.
        """
        found = next(self._stream([count], seed, offset=offset))
        return self._data, found if self._data is None else self._cut(found)

    def _chunks(self, course: Course, ends: Sequence[int]) -> Iterator[Any]:
        """What each chunk of steps trains on, on its devices."""

        def stream(seed: int) -> Iterator[Any]:
            return self._stream(ends, seed, start=course.start, offset=course.offset)

        if isinstance(course.shuffle, int):
            indices = self.layout is not None and self._data is not None
            for chunk in stream(course.shuffle):
                yield self._cut(chunk) if indices else chunk
            return
        streams = {seed: stream(seed) for seed in course.shuffle}
        for _ in ends:  # a random seed that several runs share is drawn from once
            own = {seed: next(one) for seed, one in streams.items()}
            yield np.stack([own[seed] for seed in course.shuffle])  # [runs, steps, batch]

    def _stream(
        self, ends: Sequence[int], seed: int, *, start: int = 0, offset: int = 0
    ) -> Iterator[Any]:
        put, part = self._cut, (0, 1)
        if self.layout is not None and self._streamed:
            put = partial(rows_of, self.data, mesh=self.layout.mesh)
        elif self.layout is not None and isinstance(self.data, Parted):
            part = part_here(self.layout.mesh)
            put = partial(split, mesh=self.layout.mesh, part=part)
        return chunks(
            self.data,
            self.batch_size,
            ends,
            start=start,
            seed=seed,
            offset=offset,
            put=put,
            part=part,
            streamed=self._streamed,
        )

    @property
    def _streamed(self) -> bool:
        return self.layout is not None and is_large(self.data)

    @cached_property
    def _cut(self) -> Callable[[Any], Any]:
        """Brings a chunk to the devices, each its part."""
        return jax.device_put if self.layout is None else partial(split, mesh=self.layout.mesh)

    def _laid(self, state: TrainState) -> TrainState:
        """The state, where it belongs."""
        return state if self.layout is None else self.layout.state(state)

    @cached_property
    def _data(self) -> Batch | None:
        data = None if self._streamed else resident(self.data)
        return data if self.layout is None else self.layout.whole(data)
