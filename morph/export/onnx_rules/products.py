"""Products and convolutions in ONNX.

ONNX keeps channels in front (NCHW); convolutions are transposed, and ONNX Runtime removes the
transposes between them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from morph.export.onnx_rules.graph import (
    Graph,
    Rule,
    Unsupported,
    computed,
    dilated,
    moved,
    padded,
    reshaped,
    scalar,
)
from regularizers.primitives import jaxprs
from regularizers.primitives.jaxprs import JaxprEqn, Primitive
from regularizers.primitives.jaxprs import primitives as p


def _dot(graph: Graph, eqn: JaxprEqn, lhs: str, rhs: str) -> str:
    (left, right), (left_batch, right_batch) = eqn.params["dimension_numbers"]
    lhs_rank, rhs_rank = (len(jaxprs.shape_of(v)) for v in eqn.invars)
    wide = computed(eqn.outvars[0])
    lhs, rhs = (
        name if computed(v) == wide else graph.cast(name, wide)
        for name, v in zip((lhs, rhs), eqn.invars, strict=True)
    )
    shapes = [jaxprs.shape_of(v) for v in eqn.invars]
    rest = [k for k in range(lhs_rank) if k not in (*left, *left_batch)]
    free = [k for k in range(rhs_rank) if k not in (*right, *right_batch)]
    batch, rows = ([shapes[0][k] for k in own] for own in (left_batch, rest))
    inner, columns = ([shapes[1][k] for k in own] for own in (right, free))
    lhs = moved(graph, lhs, [*left_batch, *rest, *left])
    rhs = moved(graph, rhs, [*right_batch, *right, *free])
    ahead = rows if not batch and rows else [math.prod(rows)]  # a matrix takes rows of any rank
    if ahead != rows or len(inner) != 1:
        lhs = reshaped(graph, lhs, [*batch, *ahead, math.prod(inner)])
    if len(inner) != 1 or len(columns) != 1:
        rhs = reshaped(graph, rhs, [*batch, math.prod(inner), math.prod(columns)])
    result = graph.node("MatMul", lhs, rhs)
    if ahead == rows and len(columns) == 1:
        return result
    return reshaped(graph, result, [*batch, *rows, *columns])


def _convolution(graph: Graph, eqn: JaxprEqn, x: str, kernel: str) -> str:
    """Where the input is dilated, a transposed one: its kernel turned, its padding what is left."""
    params = eqn.params
    if params["batch_group_count"] != 1:
        raise Unsupported("groups of the batch")
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    if not isinstance(groups, int):
        raise Unsupported("as many groups as there are examples")
    spread, pads = list(params["lhs_dilation"]), [tuple(own) for own in params["padding"]]
    space = len(spread)
    shape = [jaxprs.shape_of(eqn.invars[0])[k] for k in numbers.lhs_spec]
    x, kernel = moved(graph, x, numbers.lhs_spec), moved(graph, kernel, numbers.rhs_spec)
    known = graph.value(kernel)
    apart = list(params["rhs_dilation"])
    options: dict[str, Any] = {"dilations": apart, "group": groups}
    if max(spread, default=1) > 1 and known is not None and set(params["window_strides"]) <= {1}:
        turned = _turned(known, groups)
        width = [(n - 1) * d + 1 for n, d in zip(known.shape[2:], apart, strict=True)]
        left = [(n - 1 - low, n - 1 - high) for n, (low, high) in zip(width, pads, strict=True)]
        result = graph.node(
            "ConvTranspose",
            x,
            graph.constant(turned),
            strides=spread,
            pads=[max(0, low) for low, _ in left] + [max(0, high) for _, high in left],
            **options,
        )
        more = [(0, 0), (0, 0), *((max(0, -low), max(0, -high)) for low, high in left)]
        result = padded(graph, result, more, scalar(graph, eqn, 0))
    else:
        zero = scalar(graph, eqn, 0)
        for k, by in enumerate(spread):
            x = dilated(graph, x, shape, k + 2, by, zero)
            shape[k + 2] = max(0, (shape[k + 2] - 1) * by + 1)
        x = padded(
            graph, x, [(0, 0), (0, 0), *((min(0, low), min(0, high)) for low, high in pads)], zero
        )
        low, high = (
            zip(*((max(0, own[0]), max(0, own[1])) for own in pads), strict=True)
            if space
            else ((), ())
        )
        result = graph.node(
            "Conv", x, kernel, strides=list(params["window_strides"]), pads=[*low, *high], **options
        )
    return moved(graph, result, np.argsort(numbers.out_spec))


def _turned(kernel: np.ndarray, groups: int) -> np.ndarray:
    """[out, in / groups, ...] -> [in, out / groups, ...], mirrored along the window."""
    out, own, *window = kernel.shape
    parts = kernel.reshape(groups, out // groups, own, *window).swapaxes(1, 2)
    axes: Sequence[int] = range(2, kernel.ndim)
    return np.ascontiguousarray(
        np.flip(parts.reshape(groups * own, out // groups, *window), tuple(axes))
    )


RULES: Mapping[Primitive, Rule] = {
    p.conv_general_dilated_p: _convolution,
    p.dot_general_p: _dot,
}
