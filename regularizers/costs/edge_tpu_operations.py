"""What the Edge TPU's compiler maps to the device, by the published table, and what it does not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regularizers.costs.edge_tpu import IN_STEP

_TABLE = "Coral's op table"  # of "TensorFlow models on the Edge TPU", coral.ai
_COPY = "copies of Coral's op table, without the text of a limit"
_FIELD = "field reports"


@dataclass(frozen=True, kw_only=True)
class Support:
    """Whether the Edge TPU's compiler maps a TFLite operation.

    Attributes:
        maps: whether it does.
        limit: in which cases only; "" where none is known.
        source: who says so.
    """

    maps: bool = True
    limit: str = ""
    source: str = _TABLE


OPERATIONS: Mapping[str, Support] = {
    "Add": Support(),
    "AveragePool2d": Support(limit="no fused activation"),
    "BatchMatMul": Support(maps=False, source=_FIELD),
    "Concatenation": Support(
        limit="no fused activation; a constant only as one of two inputs, and all zeros"
    ),
    "Conv2d": Support(limit="the same dilation in x and y; not grouped (field reports)"),
    "DepthwiseConv2d": Support(limit="the same dilation in x and y"),
    "ExpandDims": Support(),
    "FullyConnected": Support(limit="default weights format; 1-D output, that is one row"),
    "L2Normalization": Support(),
    "LSTM": Support(limit="unidirectional"),
    "Logistic": Support(),
    "MaxPool2d": Support(limit="no fused activation"),
    "Maximum": Support(),
    "Mean": Support(limit="not over the batch; over channels only a multiple of 4"),
    "Minimum": Support(),
    "Mul": Support(),
    "PReLU": Support(limit="alpha 1-D"),
    "Pack": Support(limit="not along the batch"),
    "Pad": Support(limit="not along the batch"),
    "PadV2": Support(maps=False, source=_FIELD),
    "Quantize": Support(),
    "ReLU": Support(),
    "ReLU6": Support(),
    "ReLUN1To1": Support(),
    "ReduceMax": Support(limit="not over the batch"),
    "ReduceMin": Support(limit="not over the batch"),
    "Reshape": Support(limit="some of large tensors are not mapped"),
    "ResizeBilinear": Support(limit="3-D; some sizes are not mapped"),
    "ResizeNearestNeighbor": Support(limit="3-D; some sizes are not mapped"),
    "Rsqrt": Support(source=_COPY),
    "Slice": Support(),
    "Softmax": Support(limit="1-D, at most 16,000 elements"),
    "SpaceToDepth": Support(),
    "Split": Support(limit="not along the batch"),
    "Squeeze": Support(limit="only leading axes of size 1"),
    "StridedSlice": Support(limit="all strides 1"),
    "Sub": Support(),
    "Sum": Support(source=_COPY),
    "Tanh": Support(),
    "TransposeConv": Support(source=_COPY),
}
"""The compiler's operations, by name."""

_NONE = "no TFLite operation that the compiler maps"

_NOTHING_TO_RUN = (
    "copy", "copy_p", "name", "optimization_barrier", "sharding_constraint", "stop_gradient",
)  # fmt: skip
_UNMAPPED = (
    "abs", "and", "argmax", "argmin", "ceil", "cos", "cumsum", "dynamic_slice",
    "dynamic_update_slice", "eq", "exp2", "floor", "gather", "ge", "gt", "is_finite", "le", "log",
    "lt", "ne", "not", "or", "pow", "reduce_and", "reduce_or", "reduce_prod", "reduce_window",
    "reduce_window_min", "rev", "round", "scatter", "scatter-add", "sign", "sin", "sort", "top_k",
    "transpose",
)  # fmt: skip
# Primitive -> (operation that it becomes; "" for none needed; None if there is none, note).
PRIMITIVES: Mapping[str, tuple[str | None, str]] = {
    # elementwise
    "add": ("Add", ""),
    "add_any": ("Add", ""),
    "sub": ("Sub", ""),
    "mul": ("Mul", ""),
    "square": ("Mul", "by itself"),
    "integer_pow": ("Mul", "by itself, for small positive exponents"),
    "neg": ("Mul", "by -1"),
    "div": ("Mul", "by the reciprocal of a constant; or a part of Softmax or Mean"),
    "max": ("Maximum", "with 0 it is ReLU"),
    "min": ("Minimum", ""),
    "clamp": ("ReLU6", "or Minimum of Maximum"),
    "logistic": ("Logistic", ""),
    "tanh": ("Tanh", ""),
    "rsqrt": ("Rsqrt", "of a layer norm, with Mean, Sub and Mul"),
    "exp": ("Softmax", "a part of it; alone it is not mapped"),
    "convert_element_type": ("Quantize", ""),
    "erf": (None, "the exact gelu; the one by tanh is mapped"),
    "erfc": (None, "the exact gelu; the one by tanh is mapped"),
    "expm1": (None, "elu, selu, celu"),
    "log1p": (None, "softplus"),
    "select_n": (None, "a choice by a mask"),
    "sqrt": (None, "unlike rsqrt"),
    # reductions and pooling
    "reduce_sum": ("Mean", "times the count, or Sum"),
    "reduce_max": ("ReduceMax", "or a part of Softmax"),
    "reduce_min": ("ReduceMin", ""),
    "reduce_window_max": ("MaxPool2d", ""),
    "reduce_window_sum": ("AveragePool2d", "times the count"),
    # movements and views
    "concatenate": ("Concatenation", ""),
    "pad": ("Pad", "with zeros; with others it is PadV2"),
    "slice": ("StridedSlice", ""),
    "split": ("Split", ""),
    "stack": ("Pack", ""),
    "reshape": ("Reshape", ""),
    "squeeze": ("Reshape", ""),
    "expand_dims": ("ExpandDims", ""),
    "broadcast_in_dim": ("", "the operation that reads it broadcasts"),
    **dict.fromkeys(_NOTHING_TO_RUN, ("", "")),
    **dict.fromkeys(_UNMAPPED, (None, "")),
}
"""What becomes of a JAX primitive that is no product or convolution; see `unsupported`."""

_LAYERS: Mapping[str, str] = {  # kind -> operation
    "conv": "Conv2d",
    "grouped conv": "Conv2d",
    "depthwise conv": "DepthwiseConv2d",
    "transposed conv": "TransposeConv",
    "dense": "FullyConnected",
    "product": "BatchMatMul",
    "resize": "ResizeBilinear",
    "concatenate": "Concatenation",
}
_BY_PRIMITIVES = ("elementwise", "pool", "reduce", "move")
_RANK = 4


def unsupported(
    kind: str,
    *,
    primitives: Sequence[str] = (),
    groups: int = 1,
    dilation: Sequence[int] = (1, 1),
    rank: int = 4,
    rows: int = 1,
    reduced_channels: int = 0,
) -> str:
    """Why the Edge TPU's compiler leaves a layer to the CPU, by the published table; "" if not.

    It is a table's word and not the compiler's: limits that depend on the size of a tensor are not
    published, see `OPERATIONS`.

    Args:
        kind: of `KINDS`, or the name of a primitive.
        primitives: what an elementwise layer, a pooling, a reduction or a movement computes.
        groups: of a convolution that is not depthwise.
        dilation: of a convolution's kernel, each way.
        rank: of the largest array of the layer, with its batch axis.
        rows: of a dense layer: batch times positions.
        reduced_channels: how many channels a reduction takes together; 0 if it goes over the map.

    Example:
        >>> unsupported("conv", dilation=(1, 2))
        'Conv2d needs the same dilation in x and y, found (1, 2)'
    """
    if rank > _RANK:
        return f"an array of rank {rank}; at most {_RANK} are mapped"
    if kind in _LAYERS:
        op = _LAYERS[kind]
        if not OPERATIONS[op].maps:
            return f"{op} is not mapped ({OPERATIONS[op].source})"
        if kind == "grouped conv" or (kind == "conv" and groups > 1):
            return "a grouped Conv2d is not mapped"
        if len(set(dilation)) > 1:
            return f"{op} needs the same dilation in x and y, found {tuple(dilation)}"
        if kind == "dense" and rows > 1:
            return f"FullyConnected is mapped for one row, found {rows}"
        return ""
    for name in primitives if kind in _BY_PRIMITIVES else (kind,):
        becomes, note = PRIMITIVES.get(name, (None, "not in the table of primitives"))
        if becomes is None:
            return f"{name} becomes {_NONE}" + f" ({note})" * bool(note)
        if becomes == "Mean" and reduced_channels % IN_STEP:
            return (
                f"Mean over channels needs a multiple of {IN_STEP}, found {reduced_channels} "
                f"({name})"
            )
    return ""


def first_unsupported(
    layers: Iterable[tuple[str, Mapping[str, Any]]],
) -> tuple[int, str] | None:
    """Where a network leaves the Edge TPU, and why; None if it never does.

    The compiler partitions once: that layer and all after it run on the CPU.

    Args:
        layers: in order, the kind of each and what else `unsupported` asks of it.

    Example:
        >>> first_unsupported([("conv", {}), ("elementwise", {"primitives": ["erf"]})])[0]
        1
    """
    for position, (kind, facts) in enumerate(layers):
        reason = unsupported(kind, **facts)
        if reason:
            return position, reason
    return None
