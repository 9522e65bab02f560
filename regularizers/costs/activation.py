"""Activation memory: the bytes of all intermediate arrays, and the most that live at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from regularizers.channels.graph import GRAPH, ChannelGraph
from regularizers.checks import DTYPE, FLAG, checked
from regularizers.costs.cost import Cost, Line
from regularizers.costs.form import Form, numpy_of
from regularizers.costs.kernels import Kernel, Schedule, Value
from regularizers.costs.schedule import schedule_of
from regularizers.costs.sizes import named_amounts
from regularizers.costs.work import line_of_kernel


@checked(graph=GRAPH, peak=FLAG, dtype=DTYPE)
def activation_bytes(graph: ChannelGraph, *, peak: bool = False, dtype: str | None = None) -> Cost:
    """Bytes of the activations of one call at the traced batch size.

    An elementwise kernel writes into the memory of an operand of the same size that nothing needs
    afterwards, if that was made in the same loop or branch, and not by the caller. The total adds
    up all arrays that are allocated, the inputs among them. The peak is the most that is allocated
    at one time, where kernels run in order and memory is freed after its last use: what a device
    needs beside the parameters.

    Args:
        graph: the channel graph of the network.
        peak: the most at one time instead of the total.
        dtype: as if all activations were of this type, e.g. `"int8"`; in their own if not given.

    Raises:
        TypeError: if there is no such type.

    Example:
        >>> reg.activation_bytes(graph, peak=True)()  # doctest: +SKIP
    """
    memory = plan_memory(schedule_of(graph))
    each = [float(jnp.dtype(dtype).itemsize if dtype else a.itemsize) for a in memory.arrays]
    terms = [[(size, a.axes)] for size, a in zip(each, memory.arrays, strict=True)]
    sizes, tables = named_amounts(list(graph.widths), {"bytes": terms})

    def amounts(widths: Any, form: Form) -> Any:
        held = tables["bytes"](sizes(widths))
        return memory.at_peak(held, form) if peak else held

    return Cost(
        name="activation_peak" if peak else "activation_bytes",
        unit="B",
        groups=graph.widths,
        lines=memory.lines,
        amounts=amounts,
    )


@dataclass(frozen=True, kw_only=True)
class Memory:
    """When arrays are allocated and freed.

    Attributes:
        arrays: those that take memory of their own.
        lines: what each is called in tables.
        index: int [2 arrays]: which array an event is about; events in order.
        sign: [2 arrays]: 1 where it is allocated, -1 where it is freed.
        first, last: int [arrays]: the events of each array.
    """

    arrays: tuple[Value, ...]
    lines: tuple[Line, ...]
    index: np.ndarray
    sign: np.ndarray
    first: np.ndarray
    last: np.ndarray

    def at_peak(self, held: Any, form: Form) -> Any:
        """Of the bytes of every array [arrays], what is allocated when it is the most."""
        if not self.arrays:
            return held
        xp = numpy_of(held)
        moments = xp.cumsum(held[self.index] * xp.asarray(self.sign, held.dtype))
        peak = form.peak(moments)
        share = xp.cumsum(peak) - peak  # before each moment
        return held * (share[self.last] - share[self.first])


def plan_memory(schedule: Schedule) -> Memory:
    """Allocates every array when it is first written, and frees it after its last use."""
    span = _Spans(schedule)
    begin: dict[Value, int] = dict.fromkeys(schedule.inputs, 0)
    end: dict[Value, int] = dict.fromkeys(schedule.inputs, len(schedule.kernels) + 1)
    lines = dict.fromkeys(schedule.inputs, Line(layer="(inputs)", detail="input"))
    for value in schedule.states:
        begin[value], end[value] = span.loop(value)
        lines[value] = Line(layer="(loops)", detail="state")
    memory_of: dict[Value, Value] = {}  # of an array that took over another's
    for i, kernel in enumerate(schedule.kernels):
        taken: set[Value] = set()
        for value in kernel.stores:
            source = _reusable(kernel, value, span, taken, i + 1)
            if source is None:
                begin[value], end[value] = i + 1, span.last[value]
                lines[value] = line_of_kernel(kernel)
            else:
                taken.add(source)
                memory_of[value] = memory_of.get(source, source)
                end[memory_of[value]] = span.last[value]
    events = [(begin[value], 0, k) for k, value in enumerate(begin)]
    events += [(end[value], 1, k) for k, value in enumerate(begin)]
    events.sort()  # what a kernel writes is allocated before what it read is freed
    position = {(k, kind): e for e, (_, kind, k) in enumerate(events)}
    return Memory(
        arrays=tuple(begin),
        lines=tuple(lines[value] for value in begin),
        index=np.asarray([k for _, _, k in events], np.int64),
        sign=np.asarray([-1.0 if kind else 1.0 for _, kind, _ in events]),
        first=np.asarray([position[k, 0] for k in range(len(begin))], np.int64),
        last=np.asarray([position[k, 1] for k in range(len(begin))], np.int64),
    )


def _reusable(
    kernel: Kernel, value: Value, span: _Spans, taken: set[Value], now: int
) -> Value | None:
    """The operand whose memory an elementwise kernel may overwrite with `value`."""
    inside = kernel.scope  # what was made outside a loop is read again by its next turn
    for source in kernel.reads if kernel.kind == "elementwise" else ():
        if (
            source.kernel is not None
            and source.scope[: len(inside)] == inside
            and not any(inside[: len(scope)] == scope for scope in source.leaves)
            and source not in taken
            and (source.axes, source.itemsize) == (value.axes, value.itemsize)
            and span.last[source] == now
        ):
            return source
    return None


class _Spans:
    """When arrays are last used; kernel i runs at i + 1, and a loop's arrays serve all its turns.

    Attributes:
        last: for every array, the last time that it is needed.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.last: dict[Value, int] = {}
        self._extent: dict[tuple[int, ...], tuple[int, int]] = {(): (0, len(schedule.kernels) + 1)}
        for now, kernel in enumerate(schedule.kernels, 1):
            for depth in range(1, len(kernel.scope) + 1):
                first, _ = self._extent.get(kernel.scope[:depth], (now, now))
                self._extent[kernel.scope[:depth]] = first, now
        for now, kernel in enumerate(schedule.kernels, 1):
            for value in kernel.writes:
                self._use(value, max(now, self._left(value)))
            for read in kernel.reads:
                array: Value | None = read
                while array is not None:
                    self._use(array, max(self._until(array, kernel.scope, now), self._left(array)))
                    array = array.whole
        for state in schedule.states:
            self._use(state, self.loop(state)[1])

    def loop(self, value: Value) -> tuple[int, int]:
        """From when to when the state of a loop, or what it stacks, is needed at least."""
        first, last = self._extent.get(value.loop, (0, 0))
        return first, max(last, self._left(value), self.last.get(value, 0))

    def _left(self, value: Value) -> int:
        """What a loop, a branch or the function returns is needed to its end."""
        return max((self._extent.get(scope, (0, 0))[1] for scope in value.leaves), default=0)

    def _until(self, value: Value, scope: tuple[int, ...], now: int) -> int:
        """A loop or branch that reads what was made before it needs that to its end."""
        shared = 0
        while shared < min(len(scope), len(value.scope)) and scope[shared] == value.scope[shared]:
            shared += 1
        return self._extent[scope[: shared + 1]][1] if len(scope) > shared else now

    def _use(self, value: Value, now: int) -> None:
        self.last[value] = max(now, self.last.get(value, 0))
