"""What training eats: sets or pipelines, in chunks that any step number can recompute."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from morph.errors import DataError
from regularizers.checks import a

T = TypeVar("T")
RESIDENT = 2**30  # bytes: a set that is larger is not kept on the devices
AHEAD = 2  # chunks that wait on the device: one is used, one is there, one is on its way


class Batch(NamedTuple):
    """Inputs and labels: arrays, NumPy's or JAX's, or trees of them; the first axis are examples.

    Attributes:
        x: what the network is given, [n, ...]: an array, or a tuple of its positional arguments, or
            a dict of its keyword arguments.
        y: what the loss takes besides, [n, ...]; None for nothing.

    Example:
        >>> tokens, mask = np.zeros((4, 7), np.int32), np.ones((4, 7), bool)
        >>> Batch({"ids": tokens, "mask": mask}, tokens).rows(slice(3)).examples
        3
    """

    x: Any
    y: Any = None

    @property
    def examples(self) -> int:
        """How many there are."""
        return len(jax.tree.leaves(self.x)[0])

    def rows(self, index: Any) -> Batch:
        """The examples of an index: integers, or a slice."""
        return jax.tree.map(lambda leaf: leaf[index], self)


def as_batch(item: Any) -> Batch:
    """What a stream gives, as a batch; a pair is one, too.

    Raises:
        DataError: if it is something else.
    """
    if isinstance(item, Batch):
        return item
    if isinstance(item, tuple) and len(item) == 2:
        return Batch(*item)
    raise DataError(
        "a stream of data must give morph.Batch(x, y), or pairs (x, y); found "
        f"{type(item).__name__}"
    )


BATCH = a(Batch, "a morph.Batch(x, y)")


@runtime_checkable
class Pipeline(Protocol):
    """Batches from anywhere: a Grain loader, a generator over files.

    Example:
        >>> class Noise:
        ...     def batches(self, start):
        ...         for step in itertools.count(start):
        ...             rng = np.random.default_rng(step)
        ...             yield Batch(rng.normal(size=(32, 8)), rng.integers(0, 10, 32))
        >>> isinstance(Noise(), Pipeline)
        True
    """

    def batches(self, start: int) -> Iterator[Batch]:
        """Endless batches of one size, from number `start` of the whole run on.

        The same number must always give the same batch: then a run that was stopped ends as if it
        had not been.
        """
        ...


@runtime_checkable
class Parted(Pipeline, Protocol):
    """A pipeline of which several processes each read their part; see `GrainBatches`."""

    def parts(self, start: int, part: int, parts: int) -> Iterator[Batch]:
        """Of each of the same batches the rows that part `part` of `parts` equal ones has."""
        ...


@runtime_checkable
class Indexed(Protocol):
    """Batches of an evaluation set by their numbers: a list, a `grain.MapDataset`."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, number: int, /) -> Any:
        """One of them."""
        ...


@dataclass(frozen=True)
class Share:
    """Every so many batches of an evaluation set; of one that is indexed no other is read.

    Attributes:
        batches: what `passes` takes, but no whole set.
        first: the number of the first one.
        step: how many there are from one to the next.
    """

    batches: Iterable[Any]
    first: int
    step: int

    def __iter__(self) -> Iterator[Any]:
        """One pass."""
        every = self.batches
        if isinstance(every, Indexed):
            return (every[number] for number in range(self.first, len(every), self.step))
        return itertools.islice(every, self.first, None, self.step)


DATA = a((Batch, Pipeline), "a morph.Batch(x, y), or a pipeline of batches")


def batches(
    examples: int, batch_size: int, *, seed: int, start: int
) -> Iterator[Int[np.ndarray, " batch"]]:
    """Endless shuffled batches, from step `start` on; the same for the same seed, always.

    Every epoch is a new permutation; its last, incomplete batch is left out.

    Raises:
        DataError: if there are fewer examples than a batch has.
    """
    per_epoch = batches_per_epoch(examples, batch_size)
    epoch, offset = divmod(start, per_epoch)
    while True:
        order = np.random.default_rng((seed, epoch)).permutation(examples)
        for i in range(offset, per_epoch):
            yield order[i * batch_size : (i + 1) * batch_size]
        epoch, offset = epoch + 1, 0


def batches_per_epoch(examples: int, batch_size: int) -> int:
    """Whole batches in an epoch.

    Raises:
        DataError: if a batch is larger than the set.
    """
    if batch_size > examples:
        raise DataError(
            f"batch_size is {batch_size}, but there are only {examples} training examples. "
            f"Choose a batch_size of at most {examples}."
        )
    return examples // batch_size


def chunk_ends(start: int, steps: int, size: int) -> list[int]:
    """The steps at which compiled chunks end: the multiples of `size`, and the last step.

    They depend on nothing else, so that a resumed run computes the same chunks.

    Example:
        >>> chunk_ends(0, 23, 10), chunk_ends(10, 23, 10)
        ([10, 20, 23], [20, 23])
    """
    return [*range((start // size + 1) * size, steps, size), steps] if start < steps else []


def chunks(
    data: Batch | Pipeline,
    batch_size: int,
    ends: Sequence[int],
    *,
    start: int,
    seed: int,
    offset: int = 0,
    put: Callable[[Any], Any] = jax.device_put,
    part: tuple[int, int] = (0, 1),
    streamed: bool = False,
) -> Iterator[Any]:
    """What each chunk of steps of a phase trains on.

    Args:
        data: a whole set, or a pipeline.
        batch_size: of a whole set; a pipeline has its own.
        ends: the step that each chunk ends at; see `chunk_ends`.
        start: the step of the phase that the first chunk starts at.
        seed: of the shuffling of a whole set.
        offset: the steps of the run before this phase: where a pipeline goes on.
        put: brings a pipeline's chunk to the devices, ahead of its use; or, of a set that is
            streamed, the examples of indices.
        part: of a pipeline whose parts can be read apart: which, of how many.
        streamed: bring the examples of a whole set, too.

    Yields:
        Of a whole set the indices int [k, batch] of its batches, of a pipeline the batches
        themselves, a `Batch` of [k, batch, ...]; what `put` makes of them where it is called.
    """
    lengths = np.diff([start, *ends])
    if isinstance(data, Pipeline):
        first = offset + start
        stream = data.parts(first, *part) if isinstance(data, Parted) else data.batches(first)
        stacked = (
            _stacked(stream, int(k), offset + int(end))
            for k, end in zip(lengths, ends, strict=True)
        )
        yield from prefetched(map(put, stacked), AHEAD)
    else:
        indices = batches(data.examples, batch_size, seed=seed, start=start)
        rows = (np.stack(list(itertools.islice(indices, int(k)))) for k in lengths)
        yield from prefetched(map(put, rows), AHEAD) if streamed else rows


def _stacked(stream: Iterator[Batch], count: int, end: int) -> Batch:
    """`count` batches, the last of which is number `end` of the run."""
    found = [as_batch(item) for item in itertools.islice(stream, count)]
    if len(found) < count:
        raise DataError(
            f"the pipeline ended after {end - count + len(found)} batches; training needs at least "
            f"{end}. Let `batches(start)` repeat the data without end."
        )
    try:
        return jax.tree.map(lambda *leaves: np.stack(list(map(np.asarray, leaves))), *found)
    except ValueError as error:  # JAX's, of trees that differ, or NumPy's, of arrays that do
        shapes = sorted({str(jax.tree.map(np.shape, batch.x)) for batch in found})
        raise DataError(
            "all batches of a pipeline must have one structure and one shape, found inputs of "
            f"{' and '.join(shapes)}; drop the incomplete last batch of an epoch."
        ) from error


def prefetched(items: Iterator[T], ahead: int) -> Iterator[T]:
    """The same items, of which up to `ahead` are made by another thread while one is used."""
    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(ahead)
    closed = threading.Event()

    def offer(item: tuple[bool, Any]) -> bool:
        while not closed.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not offer((True, item)):
                    return
            offer((False, None))
        except BaseException as error:  # raised again where the items are used
            offer((False, error))

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            more, item = ready.get()
            if more:
                yield item
            elif item is not None:
                raise item
            else:
                return
    finally:
        closed.set()
        thread.join()


def nth(data: Batch | None, chunk: Any, i: Any) -> Batch:
    """The batch of a step of a chunk, also within compiled code.

    Args:
        data: the whole set, or None if the chunk has the batches themselves.
        chunk: as of `chunks`.
        i: the step, from 0.
    """
    piece = jax.tree.map(lambda leaf: leaf[i], chunk)
    return piece if data is None else data.rows(piece)


def resident(data: Batch | Pipeline) -> Batch | None:
    """A whole set on the device, or None for a pipeline."""
    return None if isinstance(data, Pipeline) else on_device(data)


def is_large(data: Batch | Pipeline) -> bool:
    """Whether it is a whole set that is not kept on the devices."""
    return isinstance(data, Batch) and sum(leaf.nbytes for leaf in jax.tree.leaves(data)) > RESIDENT


def on_device(batch: Batch) -> Batch:
    """A batch of JAX's arrays."""
    return jax.tree.map(jnp.asarray, batch)


def first_of(data: Batch | Pipeline | Iterable[Batch], what: str) -> Batch:
    """A whole set, or the first batch of a stream.

    Args:
        data: a set, a pipeline, or what `passes` takes.
        what: it is called in a message.

    Raises:
        DataError: if it gives nothing.
    """
    if isinstance(data, Batch):
        return data
    found = next(data.batches(0) if isinstance(data, Pipeline) else passes(data), None)
    if found is None:
        raise DataError(f"the {what} gives no batches")
    return as_batch(found)


def passes(data: Batch | Iterable[Batch], size: int = 500) -> Iterator[Batch]:
    """The batches of one pass over an evaluation set.

    Args:
        data: a whole set, which is cut into batches; or anything that gives its batches, whatever
            their sizes, each time that it is iterated over: a list, an object with `__iter__`.
        size: of the batches that a whole set is cut into; the last may be smaller.

    Raises:
        DataError: if it can be gone over only once.
    """
    if isinstance(data, Batch):
        count = data.examples
        for start in range(0, count, size):
            yield data.rows(slice(start, min(start + size, count)))
        return
    if not isinstance(data, Iterable) or isinstance(data, Iterator):
        raise DataError(
            "an evaluation set is a morph.Batch, or gives its batches each time that it is "
            "iterated over, as a list or an object with __iter__ does; found a "
            f"{type(data).__name__}"
            + (", which is used up after one pass" if isinstance(data, Iterator) else "")
        )
    yield from map(as_batch, data)
