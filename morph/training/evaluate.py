"""A network over a whole evaluation set, of which one batch is on the devices at a time.

Several processes share the batches of a stream, and exchange once what these come to. The batches
of a whole set, and of networks that the processes share, are divided over all devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh

from morph.errors import DataError
from morph.network import Variables
from morph.training.data import Batch, Share, on_device, passes
from morph.training.layout import Layout
from morph.training.mesh import from_each
from morph.training.metrics import Metric
from regularizers.host import on_host

Predict: TypeAlias = Callable[[Variables, Any], Any]


class Comparison(NamedTuple):
    """How far the outputs of a network are from those of another, over a whole set.

    Attributes:
        difference: the largest, over the largest output of the other.
        same: whether both say the same of every example; None if that is not asked.
    """

    difference: float
    same: bool | None


class _Seen(NamedTuple):
    """What some batches come to: the states of all metrics, and what a `Comparison` is made of."""

    states: dict[str, Any]
    apart: Any
    largest: Any
    same: bool


@dataclass(frozen=True)
class Evaluator:
    """Runs networks over an evaluation set, batch by batch, and accumulates what they come to.

    `predict` is best jitted by who calls this often.

    Attributes:
        data: a whole set, which stays where it is; or what gives its batches at every pass, see
            `morph.training.data.passes`.
        metrics: by name.
        batch_size: that a whole set is cut into.
        layout: where batches and variables lie, in all processes of a run; where they are if None.
        decide: of outputs, what they say; see `Task.decide`.
    """

    data: Batch | Iterable[Batch]
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    batch_size: int = 500
    layout: Layout | None = None
    decide: Callable[[Any], Any] | None = None

    def outputs(self, predict: Predict, variables: Variables) -> Any:
        """The outputs for the whole set, on the host: a tree of arrays [examples, ...]."""
        parts = [on_host(found) for found, _ in self._outputs(predict, variables)]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

    def measure(self, predict: Predict, variables: Variables) -> dict[str, float]:
        """Every metric over the whole set.

        Raises:
            DataError: if there is nothing to measure, or a metric is of no use: it changes shape
                from batch to batch, or comes to no number.
        """
        found = self._of_each((predict, variables))
        return self._computed(self._merged(one.states for one in found))

    def compare(
        self, dense: tuple[Predict, Variables], small: tuple[Predict, Variables]
    ) -> tuple[dict[str, float], Comparison]:
        """Every metric of a network, and how far it is from another one.

        Args:
            dense: the other network.
            small: the one that is measured.
        """
        found = self._of_each(small, dense)
        apart, largest = max(one.apart for one in found), max(one.largest for one in found)
        difference = float(apart / largest) if apart else 0.0
        same = None if self.decide is None else all(one.same for one in found)
        metrics = self._computed(self._merged(one.states for one in found))
        return metrics, Comparison(difference, same)

    def _of_each(self, *networks: tuple[Predict, Variables]) -> list[_Seen]:
        """What each process sees of its share of the batches; or all, where they share none."""
        leaves = jax.tree.leaves([variables for _, variables in networks])
        whole = all(x.is_fully_replicated for x in leaves if isinstance(x, jax.Array))
        is_run = self.layout is not None and jax.process_count() > 1
        if not is_run or not whole or isinstance(self.data, Batch):
            return [self._seen(*networks)]
        own, layout = self._own
        here = [(predict, layout.whole(on_host(variables))) for predict, variables in networks]
        return from_each(partial(own._seen, *here))

    def _seen(
        self, small: tuple[Predict, Variables], dense: tuple[Predict, Variables] | None = None
    ) -> _Seen:
        """All metrics of a network, and how far it is from another one, if one is given."""
        states: dict[str, Any] = {}
        apart, largest, same = np.float32(0.0), np.float32(0.0), True
        for outputs, batch in self._outputs(*small):
            found = self._measured(outputs, batch)  # compiled functions sort the names
            self._merge(states, {name: jax.tree.map(_wide, found[name]) for name in self.metrics})
            if dense is None:
                continue
            reference = dense[0](dense[1], batch.x)
            for own, other in zip(_floats(outputs), _floats(reference), strict=True):
                apart = max(apart, np.abs(own - other).max(initial=0.0))
                largest = max(largest, np.abs(other).max(initial=0.0))
            if self.decide is not None:
                said = zip(
                    *(jax.tree.leaves(on_host(self.decide(one))) for one in (outputs, reference)),
                    strict=True,
                )
                same = same and all(np.array_equal(one, other) for one, other in said)
        return _Seen(states, apart, largest, same)

    def _outputs(self, predict: Predict, variables: Variables) -> Iterator[tuple[Any, Batch]]:
        """The outputs for every batch, and the batch, on the devices."""
        put = on_device if self.layout is None else self.layout.batch
        for batch in map(put, passes(self.data, self.batch_size)):
            yield predict(variables, batch.x), batch

    def _merged(self, found: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """The states of several shares as one."""
        states: dict[str, Any] = {}
        for one in found:
            self._merge(states, one)
        return states

    def _merge(self, states: dict[str, Any], found: Mapping[str, Any]) -> None:
        """Merges the states of all metrics into those so far."""
        for name, state in found.items():
            before = states.setdefault(name, state)
            if before is state:
                continue
            shapes = [jax.tree.map(np.shape, one) for one in (before, state)]
            if shapes[0] != shapes[1]:
                raise DataError(
                    f"the metric {name!r} changes shape from batch to batch: it gave {shapes[0]}, "
                    f"then {shapes[1]}; its state must have one shape for all batches"
                )
            states[name] = self.metrics[name].merge(before, state)

    def _computed(self, states: Mapping[str, Any]) -> dict[str, float]:
        """What the states of all batches come to."""
        if self.metrics and not states:
            raise DataError("the evaluation set gives no batches: there is nothing to measure")
        found = {}
        for name, state in states.items():
            value = self.metrics[name].compute(state)
            if np.ndim(value):
                raise DataError(
                    f"the metric {name!r} gives an array of shape {np.shape(value)}; it must "
                    "give a number"
                )
            found[name] = float(value)
        return found

    @cached_property
    def _own(self) -> tuple[Evaluator, Layout]:
        """Of every so many batches, on the devices of this process."""
        assert not isinstance(self.data, Batch)
        share = Share(self.data, jax.process_index(), jax.process_count())
        layout = Layout(mesh=Mesh(np.asarray(jax.local_devices()), ("data",)))
        return replace(self, data=share, layout=layout), layout

    @cached_property
    def _measured(self) -> Callable[[Any, Batch], dict[str, Any]]:
        def measured(outputs: Any, batch: Batch) -> dict[str, Any]:
            return {name: metric.measure(outputs, batch) for name, metric in self.metrics.items()}

        return jax.jit(measured)


def _wide(leaf: Any) -> Any:
    """A number or array in 64 bits, so that sums over many batches stay exact."""
    array = on_host(leaf)
    return array.astype(np.int64 if array.dtype.kind in "biu" else np.float64)


def _floats(tree: Any) -> list[np.ndarray]:
    """The floating-point arrays of a tree, on the host."""
    leaves = map(on_host, jax.tree.leaves(tree))
    return [leaf for leaf in leaves if leaf.dtype.kind not in "biuO"]
