"""What the Edge TPU's compiler would map of a TFLite file, and how long that takes.

The table of operations is the project's own (`OPERATIONS`, after Coral,
"TensorFlow models on the Edge TPU", coral.ai/docs/edgetpu/models-intro); here are the limits that
the file itself can be checked for. The compiler partitions once: the first operation that it does
not map, and everything after it, runs on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from morph.export import flatbuffer
from morph.export.flatbuffer import Graph, Operation
from regularizers.checks import PATH, a, checked
from regularizers.costs.edge_tpu import EDGE_TPU, IN_STEP, EdgeTPU, Layers, seconds
from regularizers.costs.edge_tpu_operations import OPERATIONS
from regularizers.costs.form import EXACT

# The file's operation -> the name in Coral's table, and the kind of layer that it costs; "" if none
_NAMES: Mapping[str, tuple[str, str]] = {
    "ADD": ("Add", "elementwise"),
    "AVERAGE_POOL_2D": ("AveragePool2d", "pool"),
    "BATCH_MATMUL": ("BatchMatMul", "product"),
    "CONCATENATION": ("Concatenation", "concatenate"),
    "CONV_2D": ("Conv2d", "conv"),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2d", "depthwise conv"),
    "EXPAND_DIMS": ("ExpandDims", ""),
    "FULLY_CONNECTED": ("FullyConnected", "dense"),
    "L2_NORMALIZATION": ("L2Normalization", "elementwise"),
    "LOGISTIC": ("Logistic", "elementwise"),
    "MAXIMUM": ("Maximum", "elementwise"),
    "MAX_POOL_2D": ("MaxPool2d", "pool"),
    "MEAN": ("Mean", "reduce"),
    "MINIMUM": ("Minimum", "elementwise"),
    "MUL": ("Mul", "elementwise"),
    "PACK": ("Pack", "move"),
    "PAD": ("Pad", "move"),
    "PADV2": ("PadV2", "move"),
    "PRELU": ("PReLU", "elementwise"),
    "QUANTIZE": ("Quantize", "elementwise"),
    "REDUCE_MAX": ("ReduceMax", "reduce"),
    "REDUCE_MIN": ("ReduceMin", "reduce"),
    "RELU": ("ReLU", "elementwise"),
    "RELU6": ("ReLU6", "elementwise"),
    "RELU_N1_TO_1": ("ReLUN1To1", "elementwise"),
    "RESHAPE": ("Reshape", ""),
    "RESIZE_BILINEAR": ("ResizeBilinear", "resize"),
    "RESIZE_NEAREST_NEIGHBOR": ("ResizeNearestNeighbor", "resize"),
    "RSQRT": ("Rsqrt", "elementwise"),
    "SLICE": ("Slice", "move"),
    "SOFTMAX": ("Softmax", "elementwise"),
    "SPACE_TO_DEPTH": ("SpaceToDepth", "move"),
    "SPLIT": ("Split", "move"),
    "SQUEEZE": ("Squeeze", ""),
    "STRIDED_SLICE": ("StridedSlice", "move"),
    "SUB": ("Sub", "elementwise"),
    "SUM": ("Sum", "reduce"),
    "TANH": ("Tanh", "elementwise"),
    "TRANSPOSE_CONV": ("TransposeConv", "transposed conv"),
}
_SOFTMAX_ELEMENTS = 16_000
_BIAS_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one operation runs.

    Attributes:
        op: of the file, e.g. `CONV_2D`.
        output: the name of its result, which tells the layer.
        reason: why it is left to the CPU; "" if it is mapped.
    """

    op: str
    output: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What would run where, by Coral's table; nothing was compiled.

    Attributes:
        places: every operation of the file, in order.
        seconds: predicted, of what is mapped: one inference on a USB accelerator.
    """

    places: tuple[Place, ...]
    seconds: float

    @property
    def on_cpu(self) -> tuple[Place, ...]:
        """What runs on the CPU."""
        return tuple(place for place in self.places if place.reason)

    def __str__(self) -> str:
        """One line on all, one on each reason."""
        mapped = len(self.places) - len(self.on_cpu)
        lines = [
            f"Edge TPU: {mapped} of {len(self.places)} operations mapped, "
            f"{self.seconds * 1e3:.2f} ms predicted for them"
        ]
        lines += [f"  CPU: {place.op} ({place.output}): {place.reason}" for place in self.on_cpu]
        return "\n".join(lines)


@checked(path=PATH, tpu=a(EdgeTPU, "an EdgeTPU of regularizers.costs.edge_tpu"))
def placement(path: str | Path, tpu: EdgeTPU = EDGE_TPU) -> Placement:
    """What the Edge TPU's compiler would map of a TFLite file, and the latency of that.

    Args:
        path: of an int8 file, see `to_tflite`.
        tpu: the constants of the cost model (docs/edge_tpu.md).

    Raises:
        ExportError: if it is no TFLite file. MissingExtraError.

    Example:
        >>> print(placement("net.tflite"))          # doctest: +SKIP
        Edge TPU: 68 of 69 operations mapped, 2.66 ms predicted for them
    """
    graph = flatbuffer.read(Path(path).read_bytes())
    places, first = [], ""
    for op in graph.operations:
        reason = f"comes after {first}" if first else _reason(op)
        first = first or (op.name if reason else "")
        places.append(Place(op=op.name, output=op.outputs[0].name[:80], reason=reason))
    mapped = [op for op, place in zip(graph.operations, places, strict=True) if not place.reason]
    return Placement(places=tuple(places), seconds=_seconds(graph, mapped, tpu))


def _reason(op: Operation) -> str:
    """Why an operation is not mapped; "" if it is, as far as the file tells."""
    if op.name not in _NAMES:
        return f"{op.name} is not in Coral's table"
    name = _NAMES[op.name][0]
    support = OPERATIONS[name]
    if not support.maps:
        return f"{name} is not mapped ({support.source})"
    tensors = (*op.inputs, *op.outputs)
    if wide := [t.dtype for t in tensors if t.value is None and t.dtype not in ("INT8", "UINT8")]:
        return f"it computes with {wide[0]}; only 8-bit integers are mapped"
    if max(len(t.shape) for t in tensors) > 4:
        return f"an array of rank {max(len(t.shape) for t in tensors)}; at most 4 are mapped"
    check = _LIMITS.get(name)
    broken = check(op) if check else ""
    return f"{name}: {broken}" if broken else ""


def _convolution(op: Operation) -> str:
    dilation = op.options["dilationHFactor"], op.options["dilationWFactor"]
    if dilation[0] != dilation[1]:
        return f"needs the same dilation in x and y, found {dilation}"
    if op.name == "CONV_2D" and op.inputs[1].shape[-1] != op.inputs[0].shape[-1]:
        return "grouped convolutions are not mapped"
    return ""


def _no_activation(op: Operation) -> str:
    return "no fused activation is mapped" if op.options["fusedActivationFunction"] else ""


def _concatenation(op: Operation) -> str:
    constants = [t for t in op.inputs if t.value is not None]
    if constants and (len(op.inputs) > 2 or any(np.any(t.value) for t in constants)):
        return "a constant may be one of two inputs, and all zeros"
    return _no_activation(op)


def _dense(op: Operation) -> str:
    rows = int(np.prod(op.outputs[0].shape[:-1]))
    return f"one row is mapped, found {rows}" if rows > 1 else ""


def _reduced(op: Operation) -> str:
    given, rank = op.inputs[1].value, len(op.inputs[0].shape)
    if given is None:
        return "its axes are computed"
    axes = {int(k) % rank for k in np.ravel(given)}
    if 0 in axes and op.inputs[0].shape[0] > 1:
        return "not over the batch"
    channels = op.inputs[0].shape[-1]
    if op.name == "MEAN" and rank - 1 in axes and channels % IN_STEP:
        return f"over channels it needs a multiple of {IN_STEP}, found {channels}"
    return ""


def _padded(op: Operation) -> str:
    pads = op.inputs[1].value
    return "not along the batch" if pads is None or np.any(pads[0]) else ""


def _softmax(op: Operation) -> str:
    size = int(np.prod(op.inputs[0].shape))
    if size > _SOFTMAX_ELEMENTS or size != op.inputs[0].shape[-1]:
        return f"one row of at most {_SOFTMAX_ELEMENTS} is mapped, found {op.inputs[0].shape}"
    return ""


def _strided(op: Operation) -> str:
    strides = op.inputs[3].value
    if strides is None or np.any(np.ravel(strides) != 1):
        return "all strides must be 1"
    return ""


# By Coral's name: what of the limits in `OPERATIONS` the file shows.
_LIMITS: Mapping[str, Callable[[Operation], str]] = {
    "AveragePool2d": _no_activation,
    "Concatenation": _concatenation,
    "Conv2d": _convolution,
    "DepthwiseConv2d": _convolution,
    "FullyConnected": _dense,
    "MaxPool2d": _no_activation,
    "Mean": _reduced,
    "Pad": _padded,
    "ReduceMax": _reduced,
    "ReduceMin": _reduced,
    "Softmax": _softmax,
    "StridedSlice": _strided,
}


def _seconds(graph: Graph, mapped: list[Operation], tpu: EdgeTPU) -> float:
    """Of one inference of the operations that are mapped; 0 if none is."""
    rows = [row for op in mapped if (row := _layer(op)) is not None]
    if not rows:
        return 0.0
    columns = dict(zip(rows[0], zip(*(row.values() for row in rows), strict=True), strict=True))
    kind = np.asarray(columns.pop("kind"), dtype=object)
    layers = Layers(kind=kind, **{k: np.asarray(v, np.float64) for k, v in columns.items()})
    sent = sum(int(np.prod(t.shape)) for t in graph.inputs)
    returned = sum(int(np.prod(t.shape)) for t in mapped[-1].outputs)
    per_layer, fixed = seconds(layers, float(sent), float(returned), EXACT, tpu)
    return float(per_layer.sum() + fixed)


def _layer(op: Operation) -> dict[str, object] | None:
    """What the cost model wants to know of an operation; None if it costs nothing."""
    kind = _NAMES[op.name][1]
    if not kind:
        return None
    source, out = op.inputs[0].shape, op.outputs[0].shape
    in_map, out_map = _map(source), _map(out)
    kernel = op.inputs[1] if kind in ("conv", "depthwise conv", "dense") else None
    window = 1
    if kind in ("conv", "depthwise conv") and kernel is not None:
        window = kernel.shape[1] * kernel.shape[2]
    if kind == "pool":
        window = op.options["filterHeight"] * op.options["filterWidth"]
    weights = int(np.prod(kernel.shape)) + _BIAS_BYTES * out[-1] if kernel is not None else 0
    return {
        "kind": kind,
        "window": window,
        "height": out_map[0],
        "width": out_map[1],
        "in_height": in_map[0],
        "in_width": in_map[1],
        "in_channels": source[-1] if source else 1,
        "out_channels": out[-1] if out else 1,
        "weight_bytes": weights,
    }


def _map(shape: tuple[int, ...]) -> tuple[int, int]:
    return (shape[1], shape[2]) if len(shape) == 4 else (1, 1)
