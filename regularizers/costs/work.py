"""What every kernel of a network does, as arrays over kernels: what costs are functions of.

A new cost is a function and a name. `price` sees one entry per kernel, in order:

    def traffic(work, form):
        return work.bytes_read + work.bytes_written

    cost = cost_of_work(graph, "traffic", "B", traffic)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

import jax
import numpy as np

from regularizers.channels.graph import GRAPH, ChannelGraph
from regularizers.checks import FUNCTION, NAME, a, checked
from regularizers.costs.cost import Cost, Line
from regularizers.costs.flops import flop_factors, line_of
from regularizers.costs.form import Form
from regularizers.costs.kernels import Kernel, Schedule, Value
from regularizers.costs.schedule import schedule_of
from regularizers.costs.sizes import Table, Term, named_amounts
from regularizers.primitives.axes import Axis
from regularizers.primitives.jaxprs import primitives as p
from regularizers.primitives.jaxprs import ragged_dot_general_p

Price: TypeAlias = Callable[["Work", Form], Any]
NOTHING: tuple[Term, ...] = ()
ONE: tuple[Term, ...] = ((1.0, ()),)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What does not depend on widths, [kernels] each.

    Attributes:
        kind: e.g. `conv`; see `kernels.Kernel`.
        window: taps of the window of a convolution or pooling; 1 elsewhere.
        height, width: of the map that is written; 1 where there is none. The last axis is taken
            for the channels, but for a convolution, which says which it is.
        in_height, in_width: of the map that is read.
        count: how often one call runs the kernel.
        itemsize: bytes of one element of what is written.
        joins: how many activations are read.
        primitives: the names of the operations in it.
    """

    kind: np.ndarray
    window: np.ndarray
    height: np.ndarray
    width: np.ndarray
    in_height: np.ndarray
    in_width: np.ndarray
    count: np.ndarray
    itemsize: np.ndarray
    joins: np.ndarray
    primitives: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """What one run of every kernel does at some widths; amounts are arrays [kernels].

    Attributes:
        facts: what does not depend on widths.
        sizes: the sizes of all axes at these widths.
        tables: from sizes to amounts.
    """

    facts: Facts = field(repr=False)
    sizes: Any = field(repr=False)
    tables: Mapping[str, Table] = field(repr=False)

    @cached_property
    def flops(self) -> Any:
        """FLOPs of products and convolutions, 2 per multiply-add; 0 for all other kernels."""
        return self.tables["flops"](self.sizes)

    @cached_property
    def in_channels(self) -> Any:
        """Channels that are summed over (per group of a grouped convolution), or read."""
        return self.tables["in_channels"](self.sizes)

    @cached_property
    def all_in_channels(self) -> Any:
        """The same of all groups of a grouped convolution together."""
        return self.tables["all_in_channels"](self.sizes)

    @cached_property
    def out_channels(self) -> Any:
        """Channels that are written."""
        return self.tables["out_channels"](self.sizes)

    @cached_property
    def positions(self) -> Any:
        """Rows: what is written, over its channels (and over `batches` of a product)."""
        return self.tables["positions"](self.sizes)

    @cached_property
    def batches(self) -> Any:
        """Independent products of one batched product; 1 elsewhere."""
        return self.tables["batches"](self.sizes)

    @cached_property
    def read(self) -> Any:
        """Elements of activations that are read."""
        return self.tables["read"](self.sizes)

    @cached_property
    def written(self) -> Any:
        """Elements of activations that are written."""
        return self.tables["written"](self.sizes)

    @cached_property
    def weights(self) -> Any:
        """Elements of the kernel of a product or convolution; 0 elsewhere."""
        return self.tables["weights"](self.sizes)

    @cached_property
    def operations(self) -> Any:
        """Elementwise operations times elements; for a reduction the elements that it reads."""
        return self.tables["operations"](self.sizes)

    @cached_property
    def transcendentals(self) -> Any:
        """How many of `operations` are exp, log, tanh, erf, ...: costly ones."""
        return self.tables["transcendentals"](self.sizes)

    @cached_property
    def parameters(self) -> Any:
        """Trained parameters, all [1]: what has to be stored beside the kernels."""
        return self.tables["parameters"](self.sizes)

    @property
    def elements(self) -> Any:
        """All elements that one run reads and writes: activations and weights."""
        return self.read + self.written + self.weights

    @property
    def bytes_read(self) -> Any:
        """Bytes of activations and weights that are read, in the traced types."""
        return (self.read + self.weights) * self.facts.itemsize

    @property
    def bytes_written(self) -> Any:
        """Bytes of activations that are written, in the traced types."""
        return self.written * self.facts.itemsize


@dataclass(frozen=True, kw_only=True, eq=False)
class Workload:
    """The work of a graph as a function of widths.

    Attributes:
        schedule: its kernels, in order.
        facts: what does not depend on widths.
        lines: what each kernel is called in tables.
    """

    schedule: Schedule
    facts: Facts
    lines: tuple[Line, ...]
    _sizes: Table
    _tables: Mapping[str, Table]

    def at(self, widths: Any) -> Work:
        """The work at widths [groups].

        At numbers, what kind of convolution a grouped one is depends on them: with one group left
        it is plain, with one channel per group depthwise. At JAX's arrays it stays the seed's.
        """
        work = Work(facts=self.facts, sizes=self._sizes(widths), tables=self._tables)
        grouped = np.isin(self.facts.kind, ("depthwise conv", "grouped conv"))
        if isinstance(widths, jax.Array) or not grouped.any():
            return work
        each = work.in_channels
        kind = np.where(work.all_in_channels <= each, "conv", "grouped conv")
        kind = np.where((kind == "grouped conv") & (each <= 1), "depthwise conv", kind)
        kind = np.where(grouped, kind.astype(object), self.facts.kind)
        return replace(work, facts=replace(self.facts, kind=kind))


def workload_of(graph: ChannelGraph) -> Workload:
    """What every kernel of the traced function does, as a function of widths."""
    schedule = schedule_of(graph)
    kernels = schedule.kernels
    shapes = [_shape(kernel) for kernel in kernels]
    amounts: dict[str, list[Sequence[Term]]] = {
        "flops": [_flops(kernel) for kernel in kernels],
        "in_channels": [shape.in_channels for shape in shapes],
        "all_in_channels": [shape.all_in_channels or shape.in_channels for shape in shapes],
        "out_channels": [shape.out_channels for shape in shapes],
        "positions": [shape.positions for shape in shapes],
        "batches": [shape.batches for shape in shapes],
        "weights": [shape.weights for shape in shapes],
        "read": [[value.elements for value in kernel.reads] for kernel in kernels],
        "written": [[value.elements for value in kernel.stores] for kernel in kernels],
        "operations": [_operations(kernel) for kernel in kernels],
        "transcendentals": [[term for term, hard in kernel.work if hard] for kernel in kernels],
        "parameters": [[(1.0, v.axes) for v in graph.variables.values() if v.trained]],
    }
    sizes, tables = named_amounts(list(graph.widths), amounts)
    return Workload(
        schedule=schedule,
        facts=_facts(kernels, shapes),
        lines=tuple(line_of_kernel(kernel) for kernel in kernels),
        _sizes=sizes,
        _tables=tables,
    )


@checked(
    graph=GRAPH,
    name=NAME,
    unit=NAME,
    price=FUNCTION,
    workload=a(Workload, "what workload_of(graph) gives"),
)
def cost_of_work(
    graph: ChannelGraph,
    name: str,
    unit: str,
    price: Price,
    workload: Workload | None = None,
) -> Cost:
    """A cost that adds up what every kernel costs.

    Args:
        graph: the channel graph of the network.
        name: what it counts.
        unit: its unit.
        price: (work, form) -> the cost of one run of every kernel, [kernels]. What has steps or
            corners is written with the functions of `form`.
        workload: of the graph, if it is known.
    """
    load = workload or workload_of(graph)
    return Cost(
        name=name,
        unit=unit,
        groups=graph.widths,
        lines=load.lines,
        amounts=lambda widths, form: price(load.at(widths), form) * load.facts.count,
    )


# ---- What a kernel is made of


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """A kernel as a matrix product of [positions, in_channels x window] and its weights."""

    in_channels: Sequence[Term]
    out_channels: Sequence[Term]
    positions: Sequence[Term]
    all_in_channels: Sequence[Term] = NOTHING  # where they differ from `in_channels`
    batches: Sequence[Term] = ONE
    weights: Sequence[Term] = NOTHING
    map: tuple[int, int] = (1, 1)
    in_map: tuple[int, int] = (1, 1)
    taps: int = 1


def _shape(kernel: Kernel) -> _Shape:
    operation = kernel.operation
    if operation is None:
        return _plain(kernel)
    if operation.primitive is p.conv_general_dilated_p:
        return _convolution(kernel)
    if operation.primitive is ragged_dot_general_p:
        numbers = operation.params["ragged_dot_dimension_numbers"]
        (lhs_sum, rhs_sum), (lhs_batch, rhs_batch) = numbers.dot_dimension_numbers
        rhs_batch = (*rhs_batch, *numbers.rhs_group_dimensions)
    else:
        (lhs_sum, rhs_sum), (lhs_batch, rhs_batch) = operation.params["dimension_numbers"]
    lhs, rhs = operation.lhs, operation.rhs
    if kernel.weights == 0:  # weights @ activations
        lhs, lhs_sum, lhs_batch, rhs, rhs_sum, rhs_batch = (
            rhs, rhs_sum, rhs_batch, lhs, lhs_sum, lhs_batch,
        )  # fmt: skip
    rows = [axis for k, axis in enumerate(lhs) if k not in (*lhs_sum, *lhs_batch)]
    columns = [axis for k, axis in enumerate(rhs) if k not in (*rhs_sum, *rhs_batch)]
    return _Shape(
        in_channels=[(1.0, tuple(lhs[k] for k in lhs_sum))],
        out_channels=[(1.0, tuple(columns))],
        positions=[(1.0, tuple(rows))],
        batches=[(1.0, tuple(lhs[k] for k in lhs_batch))],
        weights=NOTHING if kernel.weights is None else [(1.0, rhs)],
        map=(_fixed(rows[1:]), 1),
        in_map=(_fixed(rows[1:]), 1),
    )


def _convolution(kernel: Kernel) -> _Shape:
    operation = kernel.operation
    assert operation is not None
    numbers = operation.params["dimension_numbers"]
    lhs, rhs, out = operation.lhs, operation.rhs, operation.out
    positions = tuple(axis for k, axis in enumerate(out) if k != numbers.out_spec[1])
    return _Shape(
        in_channels=[(1.0, (rhs[numbers.rhs_spec[1]],))],
        all_in_channels=[(1.0, (lhs[numbers.lhs_spec[1]],))],
        out_channels=[(1.0, (out[numbers.out_spec[1]],))],
        positions=[(1.0, positions)],
        weights=NOTHING if kernel.weights is None else [(1.0, (lhs, rhs)[kernel.weights])],
        map=_map([out[k] for k in numbers.out_spec[2:]]),
        in_map=_map([lhs[k] for k in numbers.lhs_spec[2:]]),
        taps=math.prod(kernel.window),
    )


def _plain(kernel: Kernel) -> _Shape:
    """Of a kernel that is no product; arrays are [batch, ..., channels]."""
    written = _largest(kernel.stores or kernel.writes)
    read = _largest(kernel.reads)
    return _Shape(
        in_channels=[(1.0, read[-1:])],
        out_channels=[(1.0, written[-1:])],
        positions=[(1.0, written[:-1])],
        map=_map(written[1:-1]),
        in_map=_map(read[1:-1]),
        taps=math.prod(kernel.window),
    )


def _largest(values: Sequence[Value]) -> tuple[Axis, ...]:
    """The axes of the value of the highest rank."""
    return max((value.axes for value in values), key=len, default=())


def _map(axes: Sequence[Axis]) -> tuple[int, int]:
    """Height and width of what lies between batch and channels."""
    if not axes:
        return 1, 1
    return _fixed(axes[:1]), _fixed(axes[1:])


def _fixed(axes: Sequence[Axis]) -> int:
    """Positions that no width changes; 1 for what is made of channels."""
    return math.prod(axis for axis in axes if isinstance(axis, int))


def _flops(kernel: Kernel) -> Sequence[Term]:
    if kernel.operation is None:
        return NOTHING
    coefficient, factors = flop_factors(kernel.operation)
    return [(coefficient / kernel.operation.count, factors)]


def _operations(kernel: Kernel) -> Sequence[Term]:
    if kernel.kind in ("reduce", "pool"):
        return [value.elements for value in kernel.reads]
    return [term for term, _ in kernel.work]


def _facts(kernels: Sequence[Kernel], shapes: Sequence[_Shape]) -> Facts:
    written = [kernel.stores or kernel.writes for kernel in kernels]
    return Facts(
        kind=np.asarray([kernel.kind for kernel in kernels], dtype=object),
        window=np.asarray([shape.taps for shape in shapes], np.float64),
        height=np.asarray([shape.map[0] for shape in shapes], np.float64),
        width=np.asarray([shape.map[1] for shape in shapes], np.float64),
        in_height=np.asarray([shape.in_map[0] for shape in shapes], np.float64),
        in_width=np.asarray([shape.in_map[1] for shape in shapes], np.float64),
        count=np.asarray([kernel.count for kernel in kernels], np.float64),
        itemsize=np.asarray(
            [max((value.itemsize for value in values), default=0) for values in written], np.float64
        ),
        joins=np.asarray([len(kernel.reads) for kernel in kernels], np.int64),
        primitives=tuple(tuple(kernel.primitives) for kernel in kernels),
    )


def line_of_kernel(kernel: Kernel) -> Line:
    """What a kernel is called in tables."""
    if kernel.operation is not None:
        return line_of(kernel.operation)
    names = list(dict.fromkeys(kernel.primitives))
    if kernel.kind == "elementwise":
        detail = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    else:
        detail = kernel.kind if kernel.kind == names[0] else f"{kernel.kind}: {names[0]}"
        if kernel.window:
            detail = f"{kernel.kind} {'x'.join(str(n) for n in kernel.window if n > 1) or 1}"
    return Line(layer=kernel.layer or "(no scope)", detail=detail)
