"""What rules write to, and what many of them need.

A rule writes nodes and returns the name of the result, or those of all results:
`rule(graph, eqn, *operands)`, where the operands are names. ONNX Runtime computes with few types,
so what a rule gets is of `computed` types, and its results are cast back; those of `table.MOVES`
get what there is. Source: ONNX operators, opset 21.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeAlias

import jax.numpy as jnp
import numpy as np

from regularizers.errors import MorphError
from regularizers.primitives import jaxprs
from regularizers.primitives.jaxprs import ClosedJaxpr, JaxprEqn, Literal, Var

MOST, LEAST = np.iinfo(np.int64).max, np.iinfo(np.int64).min


class Unsupported(MorphError):
    """An equation that ONNX has no counterpart for; says why."""


class Typed(Protocol):
    """A value of some shape and type."""

    shape: Any
    dtype: Any


class Graph(Protocol):
    """What rules write to."""

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node; returns the name of its result."""

    def nodes(self, op: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """Adds a node of several results; returns their names."""

    def constant(self, value: Any) -> str:
        """Adds an array; returns its name."""

    def value(self, name: str) -> np.ndarray | None:
        """The array of that name; None for what is computed."""

    def shape(self, shape: Sequence[Any]) -> str:
        """Adds a shape, in which the batch may stand; returns its name."""

    def cast(self, name: str, dtype: Any) -> str:
        """Adds a cast."""

    def run(self, closed: ClosedJaxpr, operands: Sequence[str]) -> list[str]:
        """Writes the equations of a body; returns the names of its results."""

    def body(
        self,
        inputs: Sequence[Typed],
        write: Callable[[Graph, list[str]], list[Any]],
        outputs: Sequence[Typed],
    ) -> Any:
        """A graph of its own, as an attribute of a node; it sees the names outside.

        Args:
            inputs: what it takes.
            write: writes its nodes, given the names of its inputs; returns those of its outputs.
            outputs: what it gives.
        """


Rule: TypeAlias = Callable[..., "str | list[str]"]

WIDER = {
    np.dtype(narrow): np.dtype(wide)
    for narrow, wide in {
        np.bool_: np.int32, np.int8: np.int32, np.uint8: np.int32, np.int16: np.int32,
        np.uint16: np.int32, np.uint32: np.int64, np.uint64: np.int64, np.float16: np.float32,
        jnp.bfloat16: np.float32,
    }.items()
}  # fmt: skip


def computed(v: Var | Literal) -> np.dtype:
    """The type that ONNX Runtime computes with in the place of that of a value."""
    dtype = np.dtype(jaxprs.dtype_of(v))
    return WIDER.get(dtype, dtype)


def plain(op: str, **attributes: Any) -> Rule:
    """One node with the same operands."""
    return lambda graph, eqn, *operands: graph.node(op, *operands, **attributes)


def same(graph: Graph, eqn: JaxprEqn, *operands: str) -> list[str]:
    """The operands."""
    del graph, eqn
    return list(operands)


def scalar(graph: Graph, eqn: JaxprEqn, number: Any) -> str:
    """A number of the type of the first operand."""
    return graph.constant(np.asarray(number, computed(eqn.invars[0])))


def integers(graph: Graph, *numbers: Any) -> str:
    """A constant of int64 [n]."""
    return graph.constant(np.asarray(numbers, np.int64))


def moved(graph: Graph, name: str, order: Iterable[Any]) -> str:
    """The axes in another order; those of a constant at once."""
    value, order = graph.value(name), [int(k) for k in order]
    if order == sorted(order):
        return name
    if value is not None:
        return graph.constant(np.ascontiguousarray(value.transpose(order)))
    return graph.node("Transpose", name, perm=order)


def reshaped(graph: Graph, name: str, shape: Sequence[Any]) -> str:
    """The same numbers in another shape, in which one size may depend on the batch."""
    value = graph.value(name)
    if value is not None and all(isinstance(n, int) for n in shape):
        return graph.constant(value.reshape(shape))
    open_ = [k for k, n in enumerate(shape) if not isinstance(n, int)]
    if len(open_) == 1 and 0 not in shape:
        return graph.node(
            "Reshape",
            name,
            integers(graph, *(-1 if k in open_ else n for k, n in enumerate(shape))),
        )
    return graph.node("Reshape", name, graph.shape(shape), allowzero=1)


def sliced(graph: Graph, name: str, axis: int, start: Any, end: Any, step: int = 1) -> str:
    """A part of one axis; ends are numbers, or names of int64 [1]."""
    ends = [own if isinstance(own, str) else integers(graph, own) for own in (start, end)]
    return graph.node("Slice", name, *ends, integers(graph, axis), integers(graph, step))


def padded(graph: Graph, name: str, pads: Sequence[tuple[int, int]], value: str) -> str:
    """Numbers in front of and behind every axis, or fewer where the pads are negative."""
    for axis, (low, high) in enumerate(pads):
        if low < 0 or high < 0:
            name = sliced(graph, name, axis, max(0, -low), min(0, high) if high < 0 else MOST)
    before, after = ([max(0, own) for own in side] for side in zip(*pads, strict=True))
    if any((*before, *after)):
        name = graph.node("Pad", name, integers(graph, *before, *after), value)
    return name


def dilated(graph: Graph, name: str, shape: Sequence[Any], axis: int, by: int, value: str) -> str:
    """Numbers between the elements of an axis: `by` - 1 of them."""
    if by == 1 or shape[axis] in (0, 1):
        return name
    if not isinstance(shape[axis], int):
        raise Unsupported("a padding between the examples of a batch of any size")
    apart = [*shape[: axis + 1], 1, *shape[axis + 1 :]]
    name = reshaped(graph, name, apart)
    name = padded(
        graph, name, [(0, by - 1) if k == axis + 1 else (0, 0) for k in range(len(apart))], value
    )
    name = reshaped(graph, name, [*shape[:axis], shape[axis] * by, *shape[axis + 1 :]])
    return sliced(graph, name, axis, 0, shape[axis] * by - by + 1)


def size_of(graph: Graph, n: Any) -> str:
    """A size as int64 [1]."""
    return graph.shape([n])


def counted(graph: Graph, n: Any) -> str:
    """0, 1, .., n - 1 as int64 [n]."""
    if isinstance(n, int):
        return graph.constant(np.arange(n, dtype=np.int64))
    end = graph.node("Squeeze", size_of(graph, n))
    zero, one = (graph.constant(np.asarray(k, np.int64)) for k in (0, 1))
    return graph.node("Range", zero, end, one)


def chosen(graph: Graph, here: str, one: str, other: str, like: Typed) -> str:
    """One value where a truth holds, another elsewhere; of any type."""
    wide = WIDER.get(np.dtype(like.dtype))
    if wide is None:
        return graph.node("Where", here, one, other)
    return graph.cast(
        graph.node("Where", here, graph.cast(one, wide), graph.cast(other, wide)), like.dtype
    )
