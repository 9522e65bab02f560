"""Reductions, running ones, and windows, in ONNX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from morph.export.onnx_rules.graph import (
    MOST,
    Graph,
    Rule,
    Unsupported,
    computed,
    dilated,
    integers,
    moved,
    padded,
    scalar,
    sliced,
)
from regularizers.primitives import jaxprs
from regularizers.primitives.jaxprs import JaxprEqn, Primitive
from regularizers.primitives.jaxprs import primitives as p


def _reduced(op: str) -> Rule:
    def rule(graph: Graph, eqn: JaxprEqn, x: str) -> str:
        axes = integers(graph, *eqn.params["axes"])
        return graph.node(op, x, axes, keepdims=0, noop_with_empty_axes=1)

    return rule


def _truth(op: str) -> Rule:
    """Of truth values, as numbers 0 and 1."""
    reduced = _reduced(op)

    def rule(graph: Graph, eqn: JaxprEqn, x: str) -> str:
        if jaxprs.dtype_of(eqn.invars[0]) != np.bool_:
            raise Unsupported("a reduction of bits")
        return str(reduced(graph, eqn, x))

    return rule


def _argmax(op: str) -> Rule:
    def rule(graph: Graph, eqn: JaxprEqn, x: str) -> str:
        (axis,) = eqn.params["axes"]
        found = graph.node(op, x, axis=int(axis), keepdims=0)
        return graph.cast(found, computed(eqn.outvars[0]))

    return rule


def _cumulated(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    axis = graph.constant(np.asarray(eqn.params["axis"], np.int64))
    return graph.node("CumSum", x, axis, reverse=int(eqn.params["reverse"]))


def _doubled(join: Callable[[Graph, JaxprEqn, str, str], str], start: str) -> Rule:
    """A running reduction by doubling: x joined with x moved by 1, by 2, by 4, .. places."""

    def rule(graph: Graph, eqn: JaxprEqn, x: str) -> str:
        shape, axis = jaxprs.shape_of(eqn.invars[0]), eqn.params["axis"]
        n = shape[axis]
        if not isinstance(n, int):
            raise Unsupported("a running reduction along a batch of any size")
        value, by = scalar(graph, eqn, _start(start, computed(eqn.invars[0]))), 1
        while by < n:
            ends = (-by, by) if eqn.params["reverse"] else (by, -by)
            pads = [ends if k == axis else (0, 0) for k in range(len(shape))]
            x = join(graph, eqn, x, padded(graph, x, pads, value))
            by *= 2
        return x

    return rule


def _start(kind: str, dtype: np.dtype) -> Any:
    if kind == "one":
        return 1
    if dtype.kind == "f":
        return -np.inf if kind == "least" else np.inf
    return np.iinfo(dtype).min if kind == "least" else np.iinfo(dtype).max


def _joined(op: str) -> Callable[[Graph, JaxprEqn, str, str], str]:
    return lambda graph, eqn, x, y: graph.node(op, x, y)


def _log_sum(graph: Graph, eqn: JaxprEqn, x: str, y: str) -> str:
    """log(exp(x) + exp(y))."""
    most = graph.node("Max", x, y)
    endless = graph.node("IsInf", most)
    base = graph.node("Where", endless, scalar(graph, eqn, 0), most)
    parts = [graph.node("Exp", graph.node("Sub", own, base)) for own in (x, y)]
    return graph.node("Add", base, graph.node("Log", graph.node("Add", *parts)))


def _pool(op: str) -> Rule:
    return lambda graph, eqn, x: _pooled(graph, eqn, x, op)


def _pooled(graph: Graph, eqn: JaxprEqn, x: str, op: str) -> str:
    params, rank = eqn.params, len(eqn.params["window_dimensions"])
    window, strides, pads = (
        params[name] for name in ("window_dimensions", "window_strides", "padding")
    )
    shape = list(jaxprs.shape_of(eqn.invars[0]))
    floats = computed(eqn.invars[0]).kind == "f"  # the types that pools take
    for axis, by in enumerate(params["base_dilation"]):
        if by != 1:
            x = dilated(graph, x, shape, axis, by, _around(graph, eqn, op))
            shape[axis] = max(0, (shape[axis] - 1) * by + 1)
    still = [k for k in range(rank) if (window[k], strides[k], *pads[k]) == (1, 1, 0, 0)]
    if len(still) < 2 or op == "MinPool" or not floats:
        return _by_shifts(graph, eqn, x, op)
    first = 0 if 0 in still else still[0]
    channels = next((k for k in (rank - 1, 1) if k in still and k != first), still[-1])
    space = [k for k in range(rank) if k not in (first, channels)]
    if not space:
        return x
    size, apart = ([own[k] for k in space] for own in (window, params["window_dilation"]))
    order = (first, channels, *space)
    result = graph.node(
        op,
        moved(graph, x, order),
        kernel_shape=size,
        strides=[strides[k] for k in space],
        **({"dilations": apart} if max(apart) > 1 else {}),  # int8 pools know none
        pads=[pads[k][0] for k in space] + [pads[k][1] for k in space],
        **({"count_include_pad": 1} if op == "AveragePool" else {}),
    )
    if op == "AveragePool":  # JAX sums; ONNX has no such pool
        result = graph.node("Mul", result, scalar(graph, eqn, float(np.prod(size))))
    return moved(graph, result, np.argsort(order))


def _around(graph: Graph, eqn: JaxprEqn, op: str) -> str:
    """What stands in the padding."""
    kind = {"MaxPool": "least", "MinPool": "most"}.get(op)
    return scalar(graph, eqn, _start(kind, computed(eqn.invars[0])) if kind else 0)


def _by_shifts(graph: Graph, eqn: JaxprEqn, x: str, op: str) -> str:
    """Axis by axis: the window's elements are slices, which are joined."""
    params, shape = eqn.params, jaxprs.shape_of(eqn.outvars[0])
    join = {"MaxPool": "Max", "MinPool": "Min", "AveragePool": "Add"}[op]
    for axis, (low, high) in enumerate(params["padding"]):
        length, stride = params["window_dimensions"][axis], params["window_strides"][axis]
        dilation = params["window_dilation"][axis]
        if (length, stride, low, high) == (1, 1, 0, 0):
            continue
        if not isinstance(shape[axis], int):
            raise Unsupported("a window over a batch of any size")
        pads = [(low, high) if k == axis else (0, 0) for k in range(len(shape))]
        wide = padded(graph, x, pads, _around(graph, eqn, op))
        span = (shape[axis] - 1) * stride + 1
        parts = [
            sliced(graph, wide, axis, k * dilation, min(k * dilation + span, MOST), stride)
            for k in range(length)
        ]
        x = parts[0]
        for part in parts[1:]:
            x = graph.node(join, x, part)
    return x


RULES: Mapping[Primitive, Rule] = {
    p.argmax_p: _argmax("ArgMax"),
    p.argmin_p: _argmax("ArgMin"),
    p.cumlogsumexp_p: _doubled(_log_sum, "least"),
    p.cummax_p: _doubled(_joined("Max"), "least"),
    p.cummin_p: _doubled(_joined("Min"), "most"),
    p.cumprod_p: _doubled(_joined("Mul"), "one"),
    p.cumsum_p: _cumulated,
    p.reduce_and_p: _truth("ReduceMin"),
    p.reduce_max_p: _reduced("ReduceMax"),
    p.reduce_min_p: _reduced("ReduceMin"),
    p.reduce_or_p: _truth("ReduceMax"),
    p.reduce_prod_p: _reduced("ReduceProd"),
    p.reduce_sum_p: _reduced("ReduceSum"),
    p.reduce_window_max_p: _pool("MaxPool"),
    p.reduce_window_min_p: _pool("MinPool"),
    p.reduce_window_sum_p: _pool("AveragePool"),
}
