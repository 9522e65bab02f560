"""Primitives that move numbers, in ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from morph.export.onnx_rules.graph import (
    LEAST,
    Graph,
    Rule,
    Unsupported,
    counted,
    dilated,
    integers,
    moved,
    padded,
    reshaped,
    sliced,
)
from regularizers.primitives import jaxprs
from regularizers.primitives.jaxprs import JaxprEqn, Primitive
from regularizers.primitives.jaxprs import primitives as p


def _reshaped(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    """Squeezes and new axes: whatever the result's shape says."""
    return reshaped(graph, x, jaxprs.shape_of(eqn.outvars[0]))


def _reordered(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    """A reshape, which may transpose first."""
    order = eqn.params["dimensions"]
    return _reshaped(graph, eqn, x if order is None else moved(graph, x, order))


def _broadcast(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    target, dims = jaxprs.shape_of(eqn.outvars[0]), eqn.params["broadcast_dimensions"]
    shape = jaxprs.shape_of(eqn.invars[0])
    aligned: list[Any] = [1] * len(target)
    for axis, size in zip(dims, shape, strict=True):
        aligned[int(axis)] = size
    if aligned != list(shape):
        x = reshaped(graph, x, aligned)
    return x if aligned == list(target) else graph.node("Expand", x, graph.shape(target))


def _transpose(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    return moved(graph, x, eqn.params["permutation"])


def _concatenate(graph: Graph, eqn: JaxprEqn, *parts: str) -> str:
    return graph.node("Concat", *parts, axis=eqn.params["dimension"])


def _stack(graph: Graph, eqn: JaxprEqn, *parts: str) -> str:
    axis = eqn.params["axis"]
    wide = [graph.node("Unsqueeze", part, integers(graph, axis)) for part in parts]
    return graph.node("Concat", *wide, axis=axis)


def _unstack(graph: Graph, eqn: JaxprEqn, x: str) -> list[str]:
    axis = eqn.params["axis"]
    places = (graph.constant(np.asarray(k, np.int64)) for k in range(len(eqn.outvars)))
    return [graph.node("Gather", x, place, axis=axis) for place in places]


def _tile(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    return graph.node("Tile", x, integers(graph, *eqn.params["reps"]))


def _split(graph: Graph, eqn: JaxprEqn, x: str) -> list[str]:
    sizes = integers(graph, *eqn.params["sizes"])
    return graph.nodes("Split", len(eqn.outvars), x, sizes, axis=eqn.params["axis"])


def _slice(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    starts, ends = eqn.params["start_indices"], eqn.params["limit_indices"]
    strides = eqn.params["strides"] or (1,) * len(starts)
    for k, n in enumerate(jaxprs.shape_of(eqn.invars[0])):
        if not (starts[k] == 0 and ends[k] == n and strides[k] == 1):
            x = sliced(graph, x, k, graph.shape([starts[k]]), graph.shape([ends[k]]), strides[k])
    return x


def _reversed(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    axes = eqn.params["dimensions"]
    ends = [[-1] * len(axes), [LEAST] * len(axes), axes, [-1] * len(axes)]
    return graph.node("Slice", x, *(integers(graph, *v) for v in ends)) if axes else x


def _pad(graph: Graph, eqn: JaxprEqn, x: str, value: str) -> str:
    shape = list(jaxprs.shape_of(eqn.invars[0]))
    for axis, (_, _, between) in enumerate(eqn.params["padding_config"]):
        x = dilated(graph, x, shape, axis, between + 1, value)
        if between:
            shape[axis] = max(0, shape[axis] * (between + 1) - between)
    return padded(graph, x, [(low, high) for low, high, _ in eqn.params["padding_config"]], value)


def _iota(graph: Graph, eqn: JaxprEqn, *sizes: str) -> str:
    shape, axis = jaxprs.shape_of(eqn.outvars[0]), eqn.params["dimension"]
    along: list[Any] = [n if k == axis else 1 for k, n in enumerate(shape)]
    if all(isinstance(n, int) for n in shape):
        numbers = np.arange(shape[axis]).reshape(along)
        return graph.constant(np.broadcast_to(numbers, shape).astype(eqn.params["dtype"]))
    count = graph.cast(counted(graph, shape[axis]), eqn.params["dtype"])
    return graph.node("Expand", reshaped(graph, count, along), graph.shape(shape))


def _starts(graph: Graph, starts: list[str], sizes: Any, whole: Any) -> list[str]:
    """Where a slice begins along each axis, int64 [1], moved so that it fits, as JAX does."""
    found = []
    for start, size, n in zip(starts, sizes, whole, strict=True):
        most = graph.node("Sub", graph.shape([n]), graph.shape([size]))
        one = graph.node("Reshape", graph.cast(start, np.int64), integers(graph, 1))
        found.append(graph.node("Min", graph.node("Max", one, integers(graph, 0)), most))
    return found


def _dynamic_slice(graph: Graph, eqn: JaxprEqn, x: str, *starts: str) -> str:
    sizes, whole = jaxprs.shape_of(eqn.outvars[0]), jaxprs.shape_of(eqn.invars[0])
    begins = _starts(graph, list(starts[: len(sizes)]), sizes, whole)
    for axis, (begin, size, n) in enumerate(zip(begins, sizes, whole, strict=True)):
        if size != n:
            end = graph.node("Add", begin, graph.shape([size]))
            x = sliced(graph, x, axis, begin, end)
    return x


def _dynamic_update_slice(graph: Graph, eqn: JaxprEqn, x: str, update: str, *starts: str) -> str:
    """What is before, the update, and what is behind, axis by axis."""
    whole, sizes = jaxprs.shape_of(eqn.invars[0]), jaxprs.shape_of(eqn.invars[1])
    begins = _starts(graph, list(starts), sizes, whole)
    axes = [k for k in range(len(whole)) if sizes[k] != whole[k]]

    def inside(old: str, left: list[int]) -> str:
        if not left:
            return update
        axis, *rest = left
        begin = begins[axis]
        end = graph.node("Add", begin, graph.shape([sizes[axis]]))
        last = graph.shape([whole[axis]])
        middle = inside(sliced(graph, old, axis, begin, end), rest)
        before, after = sliced(graph, old, axis, 0, begin), sliced(graph, old, axis, end, last)
        return graph.node("Concat", before, middle, after, axis=axis)

    return inside(x, axes)


def _size_of(graph: Graph, eqn: JaxprEqn) -> str:
    """The batch, as a number."""
    size = reshaped(graph, graph.shape([eqn.params["dim"]]), [])
    return graph.cast(size, jaxprs.dtype_of(eqn.outvars[0]))


def _bits_of(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    old, new = (np.dtype(v) for v in (jaxprs.dtype_of(eqn.invars[0]), eqn.params["new_dtype"]))
    if old != new:
        raise Unsupported(f"the bits of {old} read as {new}")
    return x


RULES: Mapping[Primitive, Rule] = {
    p.bitcast_convert_type_p: _bits_of,
    p.broadcast_in_dim_p: _broadcast,
    p.concatenate_p: _concatenate,
    p.dynamic_slice_p: _dynamic_slice,
    p.dynamic_update_slice_p: _dynamic_update_slice,
    p.iota_p: _iota,
    p.pad_p: _pad,
    p.reshape_p: _reordered,
    p.rev_p: _reversed,
    p.slice_p: _slice,
    p.squeeze_p: _reshaped,
    p.transpose_p: _transpose,
    jaxprs.dim_as_value_p: _size_of,
    jaxprs.split_p: _split,
    jaxprs.stack_p: _stack,
    jaxprs.tile_p: _tile,
    jaxprs.unstack_p: _unstack,
}
