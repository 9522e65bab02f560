"""What each primitive of JAX is in ONNX: one rule per primitive, in one table.

A rule writes nodes and returns the name of the result: `rule(graph, eqn, *operands)`, where the
operands are names. ONNX keeps channels in front (NCHW); convolutions and pools are transposed, and
ONNX Runtime removes the transposes between them. Source: ONNX operators, opset 21.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from regularizers.errors import MorphError
from regularizers.primitives import jaxprs
from regularizers.primitives.jaxprs import JaxprEqn, Primitive
from regularizers.primitives.jaxprs import primitives as p


class Unsupported(MorphError):
    """An equation that ONNX has no counterpart for; says why."""


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


Rule: TypeAlias = Callable[..., "str | list[str]"]


def _plain(op: str) -> Rule:
    return lambda graph, eqn, *operands: graph.node(op, *operands)


def _scalar(graph: Graph, eqn: JaxprEqn, number: float) -> str:
    return graph.constant(np.asarray(number, jaxprs.dtype_of(eqn.invars[0])))


def _same(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    return x


def _rsqrt(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    return graph.node("Reciprocal", graph.node("Sqrt", x))


def _square(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    return graph.node("Mul", x, x)


def _integer_pow(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    return graph.node("Pow", x, _scalar(graph, eqn, eqn.params["y"]))


def _erfc(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    return graph.node("Sub", _scalar(graph, eqn, 1), graph.node("Erf", x))


def _log1p(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    return graph.node("Log", graph.node("Add", x, _scalar(graph, eqn, 1)))


def _expm1(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    return graph.node("Sub", graph.node("Exp", x), _scalar(graph, eqn, 1))


def _not_equal(graph: Graph, eqn: JaxprEqn, lhs: str, rhs: str) -> str:
    return graph.node("Not", graph.node("Equal", lhs, rhs))


def _cast(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    return graph.cast(x, eqn.params["new_dtype"])


def _clamp(graph: Graph, eqn: JaxprEqn, low: str, x: str, high: str) -> str:
    return graph.node("Min", graph.node("Max", x, low), high)


def _select(graph: Graph, eqn: JaxprEqn, which: str, *cases: str) -> str:
    if len(cases) != 2 or jaxprs.dtype_of(eqn.invars[0]) != np.bool_:
        raise Unsupported(f"a choice between {len(cases)} by a number")
    return graph.node("Where", which, cases[1], cases[0])


def _reduced(op: str) -> Rule:
    def rule(graph: Graph, eqn: JaxprEqn, x: str) -> str:
        axes = graph.constant(np.asarray(eqn.params["axes"], np.int64))
        return graph.node(op, x, axes, keepdims=0)

    return rule


def _argmax(op: str) -> Rule:
    def rule(graph: Graph, eqn: JaxprEqn, x: str) -> str:
        (axis,) = eqn.params["axes"]
        found = graph.node(op, x, axis=int(axis), keepdims=0)
        return graph.cast(found, eqn.params["index_dtype"])

    return rule


def _cumulated(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    axis = graph.constant(np.asarray(eqn.params["axis"], np.int64))
    return graph.node("CumSum", x, axis, reverse=int(eqn.params["reverse"]))


def _reshaped(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    """Reshapes, squeezes and new axes: whatever the result's shape says."""
    return graph.node("Reshape", x, graph.shape(jaxprs.shape_of(eqn.outvars[0])))


def _reordered(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    """A reshape, which may transpose first."""
    order = eqn.params["dimensions"]
    return _reshaped(
        graph, eqn, x if order is None else graph.node("Transpose", x, perm=list(order))
    )


def _broadcast(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    target, dims = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    shape = jaxprs.shape_of(eqn.invars[0])
    aligned: list[Any] = [1] * len(target)
    for axis, size in zip(dims, shape, strict=True):
        aligned[axis] = size
    if aligned != list(shape):
        x = graph.node("Reshape", x, graph.shape(aligned))
    return x if aligned == list(target) else graph.node("Expand", x, graph.shape(target))


def _transpose(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    return graph.node("Transpose", x, perm=list(eqn.params["permutation"]))


def _concatenate(graph: Graph, eqn: JaxprEqn, *parts: str) -> str:
    return graph.node("Concat", *parts, axis=eqn.params["dimension"])


def _split(graph: Graph, eqn: JaxprEqn, x: str) -> list[str]:
    sizes = graph.constant(np.asarray(eqn.params["sizes"], np.int64))
    return graph.nodes("Split", len(eqn.outvars), x, sizes, axis=eqn.params["axis"])


def _slice(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    starts, ends = eqn.params["start_indices"], eqn.params["limit_indices"]
    strides = eqn.params["strides"] or (1,) * len(starts)
    whole = jaxprs.shape_of(eqn.invars[0])
    axes = [
        k for k, n in enumerate(whole) if not (starts[k] == 0 and ends[k] == n and strides[k] == 1)
    ]
    given = [[list_[k] for k in axes] for list_ in (starts, ends)]
    steps = [strides[k] for k in axes]
    arrays = [graph.constant(np.asarray(v, np.int64)) for v in (*given, axes, steps)]
    return graph.node("Slice", x, *arrays) if axes else x


def _reversed(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    axes = eqn.params["dimensions"]
    ends = [np.iinfo(np.int64).min] * len(axes)
    arrays = ([-1] * len(axes), ends, axes, [-1] * len(axes))
    return graph.node("Slice", x, *(graph.constant(np.asarray(v, np.int64)) for v in arrays))


def _pad(graph: Graph, eqn: JaxprEqn, x: str, value: str) -> str:
    low, high, between = zip(*eqn.params["padding_config"], strict=True)
    if any(between):
        raise Unsupported("a padding between elements")
    return graph.node("Pad", x, graph.constant(np.asarray([*low, *high], np.int64)), value)


def _iota(graph: Graph, eqn: JaxprEqn) -> str:
    shape, axis = eqn.params["shape"], eqn.params["dimension"]
    if not all(isinstance(n, int) for n in shape):
        raise Unsupported("counting along a batch of any size")
    along = np.arange(shape[axis]).reshape([-1 if k == axis else 1 for k in range(len(shape))])
    return graph.constant(np.broadcast_to(along, shape).astype(eqn.params["dtype"]))


def _rows(graph: Graph, eqn: JaxprEqn, table: str, indices: str) -> str:
    """Rows along one axis, as embeddings and shuffles take them; other gathers have no rule."""
    numbers, shape = eqn.params["dimension_numbers"], jaxprs.shape_of(eqn.invars[1])
    sizes, along = list(jaxprs.shape_of(eqn.invars[0])), tuple(numbers.collapsed_slice_dims)
    if len(along) == 1:
        (axis,) = along
        sizes[axis] = 1
        others = (*range(axis), *range(axis + len(shape) - 1, len(sizes) + len(shape) - 2))
        if (
            tuple(numbers.start_index_map) == along
            and tuple(numbers.offset_dims) == others
            and not numbers.operand_batching_dims
            and list(eqn.params["slice_sizes"]) == sizes
        ):
            flat = graph.node("Reshape", indices, graph.shape(shape[:-1]))
            return graph.node("Gather", table, flat, axis=axis)
    raise Unsupported("a gather that does not take whole rows")


def _dot(graph: Graph, eqn: JaxprEqn, lhs: str, rhs: str) -> str:
    (left, right), (left_batch, right_batch) = eqn.params["dimension_numbers"]
    lhs_rank, rhs_rank = (len(jaxprs.shape_of(v)) for v in eqn.invars)
    if not left_batch and rhs_rank == 2 and tuple(left) == (lhs_rank - 1,) and tuple(right) == (0,):
        return graph.node("MatMul", lhs, rhs)
    letters = iter(string.ascii_lowercase)
    own = [next(letters) for _ in range(lhs_rank)]
    other = [""] * rhs_rank
    for mine, yours in (*zip(left, right, strict=True), *zip(left_batch, right_batch, strict=True)):
        other[yours] = own[mine]
    free = [k for k in range(rhs_rank) if not other[k]]
    for k in free:
        other[k] = next(letters)
    out = [own[k] for k in left_batch]
    out += [own[k] for k in range(lhs_rank) if k not in (*left, *left_batch)]
    out += [other[k] for k in free]
    equation = f"{''.join(own)},{''.join(other)}->{''.join(out)}"
    return graph.node("Einsum", lhs, rhs, equation=equation)


def _convolution(graph: Graph, eqn: JaxprEqn, x: str, kernel: str) -> str:
    params = eqn.params
    if params["batch_group_count"] != 1:
        raise Unsupported("groups of the batch")
    if any(n != 1 for n in params["lhs_dilation"]):
        raise Unsupported("a transposed convolution (its input is dilated)")
    low, high = zip(*params["padding"], strict=True)
    if min(*low, *high) < 0:
        raise Unsupported(f"a negative padding {params['padding']}")
    numbers = params["dimension_numbers"]
    result = graph.node(
        "Conv",
        _moved(graph, x, numbers.lhs_spec),
        _moved(graph, kernel, numbers.rhs_spec),
        strides=list(params["window_strides"]),
        dilations=list(params["rhs_dilation"]),
        pads=[*low, *high],
        group=params["feature_group_count"],
    )
    return _moved(graph, result, np.argsort(numbers.out_spec))


def _pool(op: str) -> Rule:
    def rule(graph: Graph, eqn: JaxprEqn, x: str) -> str:
        window, rank = eqn.params["window_dimensions"], len(eqn.params["window_dimensions"])
        in_place = [
            k
            for k in range(rank)
            if (window[k], eqn.params["window_strides"][k], *eqn.params["padding"][k])
            == (1, 1, 0, 0)
        ]
        channels = next((k for k in (rank - 1, 1) if k in in_place), 0)
        if rank < 3 or 0 not in in_place or not channels or set(eqn.params["base_dilation"]) > {1}:
            raise Unsupported("a window that is not over the map alone")
        space = [k for k in range(1, rank) if k != channels]
        pads = [eqn.params["padding"][k] for k in space]
        size = [window[k] for k in space]
        result = graph.node(
            op,
            _moved(graph, x, (0, channels, *space)),
            kernel_shape=size,
            strides=[eqn.params["window_strides"][k] for k in space],
            dilations=[eqn.params["window_dilation"][k] for k in space],
            pads=[low for low, _ in pads] + [high for _, high in pads],
            **({"count_include_pad": 1} if op == "AveragePool" else {}),
        )
        if op == "AveragePool":  # JAX sums; ONNX has no such pool
            result = graph.node("Mul", result, _scalar(graph, eqn, float(np.prod(size))))
        return _moved(graph, result, np.argsort((0, channels, *space)))

    return rule


def _moved(graph: Graph, name: str, order: Iterable[int]) -> str:
    """The axes in another order; those of a constant at once."""
    value, order = graph.value(name), [int(k) for k in order]
    if order == sorted(order):
        return name
    if value is not None:
        return graph.constant(np.ascontiguousarray(value.transpose(order)))
    return graph.node("Transpose", name, perm=order)


RULES: Mapping[Primitive, Rule] = {
    **dict.fromkeys((p.stop_gradient_p, jaxprs.copy_p, p.copy_p, p.name_p), _same),
    p.abs_p: _plain("Abs"),
    p.add_p: _plain("Add"),
    p.and_p: _plain("And"),
    p.argmax_p: _argmax("ArgMax"),
    p.argmin_p: _argmax("ArgMin"),
    p.broadcast_in_dim_p: _broadcast,
    p.ceil_p: _plain("Ceil"),
    p.concatenate_p: _concatenate,
    p.conv_general_dilated_p: _convolution,
    p.convert_element_type_p: _cast,
    p.cos_p: _plain("Cos"),
    p.cumsum_p: _cumulated,
    p.div_p: _plain("Div"),
    p.dot_general_p: _dot,
    p.eq_p: _plain("Equal"),
    p.erf_p: _plain("Erf"),
    p.erfc_p: _erfc,
    p.exp_p: _plain("Exp"),
    p.expm1_p: _expm1,
    p.floor_p: _plain("Floor"),
    p.gather_p: _rows,
    p.ge_p: _plain("GreaterOrEqual"),
    p.gt_p: _plain("Greater"),
    p.integer_pow_p: _integer_pow,
    p.iota_p: _iota,
    p.le_p: _plain("LessOrEqual"),
    p.log1p_p: _log1p,
    p.log_p: _plain("Log"),
    p.logistic_p: _plain("Sigmoid"),
    p.lt_p: _plain("Less"),
    p.max_p: _plain("Max"),
    p.min_p: _plain("Min"),
    p.mul_p: _plain("Mul"),
    p.ne_p: _not_equal,
    p.neg_p: _plain("Neg"),
    p.not_p: _plain("Not"),
    p.or_p: _plain("Or"),
    p.pad_p: _pad,
    p.pow_p: _plain("Pow"),
    p.reduce_max_p: _reduced("ReduceMax"),
    p.reduce_min_p: _reduced("ReduceMin"),
    p.reduce_prod_p: _reduced("ReduceProd"),
    p.reduce_sum_p: _reduced("ReduceSum"),
    p.reduce_window_max_p: _pool("MaxPool"),
    p.reduce_window_sum_p: _pool("AveragePool"),
    p.reshape_p: _reordered,
    p.rev_p: _reversed,
    p.rsqrt_p: _rsqrt,
    p.select_n_p: _select,
    p.sign_p: _plain("Sign"),
    p.sin_p: _plain("Sin"),
    p.slice_p: _slice,
    p.sqrt_p: _plain("Sqrt"),
    p.square_p: _square,
    p.squeeze_p: _reshaped,
    p.sub_p: _plain("Sub"),
    p.tanh_p: _plain("Tanh"),
    p.transpose_p: _transpose,
    jaxprs.clamp_p: _clamp,
    jaxprs.split_p: _split,
}
"""By primitive: writes nodes, returns the name of the result or of all results."""
