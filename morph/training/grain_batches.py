"""Batches of a Grain data set, of which every process reads its own rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from morph.errors import DataError
from morph.training.data import Batch, as_batch
from regularizers.checks import FUNCTION, checked, whole


class GrainBatches:
    """A pipeline over a `grain.MapDataset`, which reads, shuffles and augments.

    The batches of a run do not depend on how many processes share them.

    Args:
        examples: a `grain.MapDataset` of single examples, repeated without end.
        batch_size: examples in a batch, of all processes together.
        batch: of what Grain makes of the examples of a batch: a `morph.Batch`, or a pair (x, y).

    Raises:
        DataError: if it ends.

    Example:
        >>> examples = grain.MapDataset.source(files).seed(0).shuffle().repeat()  # doctest: +SKIP
        >>> train = GrainBatches(examples.map(decoded), batch_size=256)           # doctest: +SKIP
    """

    @checked(batch_size=whole(least=1), batch=FUNCTION)
    def __init__(
        self, examples: Any, batch_size: int, batch: Callable[[Any], Any] = as_batch
    ) -> None:
        lacking = [name for name in ("batch", "to_iter_dataset") if not hasattr(examples, name)]
        if lacking:
            raise DataError(
                f"examples must be a grain.MapDataset, found a {type(examples).__name__}, which "
                f"has no {lacking[0]}"
            )
        if len(examples) < 2**62:
            raise DataError(
                f"the data set ends after {len(examples)} examples; add .repeat(), after .shuffle()"
            )
        self.examples, self.batch_size, self.batch = examples, batch_size, batch

    def batches(self, start: int) -> Iterator[Batch]:
        """Endless batches from number `start` on."""
        return self.parts(start, 0, 1)

    def parts(self, start: int, part: int, parts: int) -> Iterator[Batch]:
        """Part number `part` of `parts` equal ones of each of these batches; no other is read.

        Raises:
            DataError: if a batch cannot be cut into so many.
        """
        if self.batch_size % parts:
            raise DataError(
                f"a batch of {self.batch_size} cannot be read by {parts} processes in equal parts; "
                f"choose a multiple of {parts}"
            )
        cut = self.examples.batch(self.batch_size // parts)
        own = cut[start * parts + part :: parts]
        return (as_batch(self.batch(found)) for found in own.to_iter_dataset())
