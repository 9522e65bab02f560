"""The Edge TPU (Coral USB accelerator, int8, batch 1): what a layer costs, and which can run on it.

A product or convolution is cut into array steps. One step multiplies a tile of 4 x 4 positions, 4
input channels and 64 output channels for one tap of the window:

    conv             ceil(H/4) ceil(W/4) window ceil(C_in/4) ceil(C_out/64)
    dense            ceil(C_in/4) ceil(rows ceil(C_out/64) / 16)
    depthwise conv   ceil(H/4) ceil(W/4) window ceil(C_out/64) x depthwise_steps
    pool, add, ...   ceil(H/4) ceil(W/4) window ceil(C_out/64)

    compute = steps / (clock_hz utilisation)         stream = uncached bytes / bytes_per_s
    seconds = startup_s + (input + output + layers x instruction_bytes) / bytes_per_s
              + compute + stream - overlap min(compute, stream)

Weights stay in the cache by whole layers, in order; a layer that does not fit is streamed for every
inference. Four constants are fitted to published latencies by `experiments/fit_edge_tpu.py`, which
also says how well; `docs/edge_tpu.md` has the figures and what the model does not know.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from regularizers.costs.form import EXACT, Exact, Form, numpy_of

_MIB = 2.0**20


@dataclass(frozen=True, kw_only=True)
class EdgeTPU:
    """The constants of the model, each with where it came from.

    "Fitted" means fitted to the latencies that Coral published, by `experiments/fit_edge_tpu.py`;
    none of these is a vendor's figure.

    Attributes:
        clock_hz: assumed; with 4096 multiply-adds per cycle it makes the vendor's peak of 4 TOPS
            (vendor fact: Coral USB Accelerator datasheet). Only its product with `utilisation`
            matters.
        tile: positions of a step, each way. Assumed.
        in_step: input channels of a step. Assumed.
        out_step: output channels of a step. Assumed; 4 x 4 x 4 x 64 are 4096 multiply-adds.
        utilisation: steps per cycle. Fitted.
        depthwise_steps: steps that 64 channels, a tile and a tap of a depthwise convolution take.
            Fitted.
        bytes_per_s: of the link to the host, for whatever is sent over it. Fitted; USB 3 carries at
            most 500e6 (vendor fact: 5 Gbit/s, 8 of 10 bits).
        startup_s: of one inference. Fitted.
        cache_bytes: for weights. Assumed: 7.7 MiB, which the compiler reports for small programs
            (google-coral/edgetpu issue 463). Vendor fact: about 8 MiB on chip, shared with the
            program.
        instruction_bytes: sent per layer. Assumed.
        overlap: the share of the shorter of computing and streaming that hides behind the longer.
            Assumed; 0 and 1 fit the published latencies as well.
        cache_rounding_bytes: how far from a full cache the smooth form bends. Assumed: a layer.

    Raises:
        ValueError: if a constant is not positive and finite, or a share is above 1.

    Example:
        >>> half = dataclasses.replace(EDGE_TPU, clock_hz=250e6)
    """

    clock_hz: float = 500e6
    tile: int = 4
    in_step: int = 4
    out_step: int = 64
    utilisation: float = 0.433
    depthwise_steps: float = 7.95
    bytes_per_s: float = 441e6
    startup_s: float = 0.464e-3
    cache_bytes: float = 7.7 * _MIB
    instruction_bytes: float = 2000.0
    overlap: float = 0.5
    cache_rounding_bytes: float = 0.25 * _MIB

    def __post_init__(self) -> None:
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        most = dict.fromkeys(found, math.inf) | {"utilisation": 1.0, "overlap": 1.0}
        zero = {"overlap", "instruction_bytes", "startup_s"}  # may be switched off
        bad = [
            f"{name}={value!r}"
            for name, value in found.items()
            if not (
                math.isfinite(value)
                and (value > 0 or (value == 0 and name in zero))
                and value <= most[name]
            )
        ]
        if bad:
            raise ValueError(
                "the constants of an EdgeTPU must be positive and finite, utilisation and overlap "
                f"at most 1; found {', '.join(bad)}"
            )


EDGE_TPU = EdgeTPU()
STEP, IN_STEP = EDGE_TPU.out_step, EDGE_TPU.in_step
"""Output channels come in steps of 64, input channels in steps of 4: what a width is rounded to.

The channels between two steps cost what the upper one costs.
"""

# How each kind of layer uses the array.
_PRODUCTS, _ROWS, _DEPTHWISE, _VALUES, _FREE = "products", "rows", "depthwise", "values", "free"
KINDS: Mapping[str, str] = {
    "conv": _PRODUCTS,
    "grouped conv": _PRODUCTS,
    "transposed conv": _PRODUCTS,
    "dense": _ROWS,
    "product": _ROWS,
    "depthwise conv": _DEPTHWISE,
    "pool": _VALUES,
    "reduce": _VALUES,
    "elementwise": _VALUES,
    "resize": _VALUES,
    "move": _VALUES,
    "concatenate": _FREE,  # its operands are written where the result is to be
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Layers:
    """The layers of a network in order, as arrays [n]; int8, so that a weight is a byte.

    An activation function, a batch norm or a bias behind a product or convolution is part of it and
    no layer. The first six are numpy arrays; the others may be JAX arrays, and traced.

    Attributes:
        kind: a key of `KINDS`.
        window: taps of the window of a convolution or pooling; 1 elsewhere.
        height, width: of the map that is written; 1 where there is none. Of a dense layer their
            product is the number of rows.
        in_height, in_width: of the map that is read; for reductions and transposed convolutions.
        in_channels: that one output sums over: of a grouped convolution, those of one group.
        out_channels: that are written.
        weight_bytes: of the kernel, and 4 for every bias.

    Raises:
        ValueError: if the arrays have different lengths, or a kind is unknown.
    """

    kind: np.ndarray
    window: np.ndarray
    height: np.ndarray
    width: np.ndarray
    in_height: np.ndarray
    in_width: np.ndarray
    in_channels: Any
    out_channels: Any
    weight_bytes: Any

    def __post_init__(self) -> None:
        shapes = {field.name: np.shape(getattr(self, field.name)) for field in fields(self)}
        if len(set(shapes.values())) > 1 or len(shapes["kind"]) != 1:
            raise ValueError(f"Layers takes arrays of one length; found the shapes {shapes}")
        unknown = sorted({str(kind) for kind in self.kind} - set(KINDS))
        if unknown:
            raise ValueError(f"no kind of layer {unknown}; the Edge TPU model has {sorted(KINDS)}")

    @cached_property
    def use(self) -> np.ndarray:
        """[n], how each uses the array."""
        return np.asarray([KINDS[kind] for kind in self.kind], dtype=object)

    @cached_property
    def taps(self) -> np.ndarray:
        """[n], how many input positions one output position takes; on average."""
        resized = self.in_height * self.in_width / np.maximum(self.height * self.width, 1)
        taps = np.where(self.kind == "transposed conv", self.window * resized, self.window)
        return np.where(self.kind == "reduce", np.maximum(resized, self.window), taps)


def seconds(
    layers: Layers, input_bytes: Any, output_bytes: Any, form: Form, tpu: EdgeTPU = EDGE_TPU
) -> tuple[Any, Any]:
    """How long one inference takes.

    Args:
        layers: n layers in order, all of which the Edge TPU runs; see `unsupported`.
        input_bytes: sent from the host.
        output_bytes: sent to the host.
        form: `EXACT`, with steps and a cache of whole layers; `SMOOTH`, differentiable: no steps,
            and all layers are streamed in part once the cache is full.
        tpu: the device.

    Returns:
        The seconds of each layer, [n], all >= 0, with the streaming of its weights: what overlaps
        is taken off all layers alike. And the seconds of start-up, input and output.

    Example:
        >>> per_layer, fixed = seconds(layers, 224 * 224 * 3, 1000, EXACT)  # doctest: +SKIP
        >>> per_layer.sum() + fixed  # doctest: +SKIP
    """
    compute = steps(layers, form, tpu) / (tpu.clock_hz * tpu.utilisation)
    stream = uncached_bytes(layers.weight_bytes, form, tpu) / tpu.bytes_per_s
    xp = numpy_of(compute, stream)
    alone = compute.sum() + stream.sum()
    hidden = tpu.overlap * form.minimum(compute.sum(), stream.sum())
    shown = 1.0 - hidden / xp.maximum(alone, 1e-30)
    there = (layers.in_channels > 0) & (layers.out_channels > 0)
    instructions = xp.where(there, tpu.instruction_bytes / tpu.bytes_per_s, 0.0)
    fixed = tpu.startup_s + (input_bytes + output_bytes) / tpu.bytes_per_s
    return (compute + stream) * shown + instructions, fixed


def steps(layers: Layers, form: Form, tpu: EdgeTPU = EDGE_TPU) -> Any:
    """How many array steps each layer takes, [n]; a step has the price of 4096 multiply-adds."""
    xp = numpy_of(layers.in_channels, layers.out_channels)
    inputs = form.ceil(layers.in_channels / tpu.in_step)
    outputs = form.ceil(layers.out_channels / tpu.out_step)
    tiles = np.ceil(layers.height / tpu.tile) * np.ceil(layers.width / tpu.tile)
    rows = layers.height * layers.width / tpu.tile**2
    use = layers.use
    factor = np.where(use == _DEPTHWISE, tpu.depthwise_steps, (use != _FREE).astype(float))
    each = xp.where(use == _ROWS, form.ceil(rows * outputs), factor * tiles * layers.taps * outputs)
    return each * xp.where((use == _PRODUCTS) | (use == _ROWS), inputs, 1.0)


def uncached_bytes(weight_bytes: Any, form: Form, tpu: EdgeTPU = EDGE_TPU) -> Any:
    """What of each layer's weights [n] is streamed for every inference, [n].

    Exact: a layer that still fits the cache is kept, in order; all others are streamed. Smooth:
    what is too much for the cache, of all layers alike, so that all have the same marginal cost.
    """
    xp = numpy_of(weight_bytes)
    if not isinstance(form, Exact):
        total = weight_bytes.sum()
        excess = form.excess(total - tpu.cache_bytes, tpu.cache_rounding_bytes)
        return weight_bytes * (excess / xp.maximum(total, 1.0))
    if xp is jnp:

        def keep(room: Any, layer: Any) -> tuple[Any, Any]:
            fits = layer <= room
            return jnp.where(fits, room - layer, room), fits

        _, kept = jax.lax.scan(
            keep, jnp.asarray(tpu.cache_bytes, float), weight_bytes.astype(float)
        )
        return jnp.where(kept, 0.0, weight_bytes)
    room, streamed = tpu.cache_bytes, []
    for layer in weight_bytes.tolist():
        streamed.append(0.0 if layer <= room else layer)
        room -= layer if layer <= room else 0.0
    return np.asarray(streamed, np.float64)


# ---- A plain table of layers

_OPS: Mapping[str, str] = {  # op of a record -> kind
    "conv": "conv",
    "depthwise_conv": "depthwise conv",
    "dense": "dense",
    "pool": "pool",
    "global_pool": "reduce",
    "add": "elementwise",
    "concat": "concatenate",
    "resize": "resize",
}
_SIZES = (
    "in_h", "in_w", "in_c", "out_h", "out_w", "out_c", "kernel_h", "kernel_w", "stride",
)  # fmt: skip
_BIAS_BYTES = 4


def latency_s(
    layers: Iterable[Mapping[str, Any]], input_bytes: float, output_bytes: float
) -> float:
    """The latency of a network that is given as a plain table of its layers, in seconds.

    Args:
        layers: one record per layer, in order: `op` (conv, depthwise_conv, dense, pool,
            global_pool, add, concat or resize) and the sizes `in_h`, `in_w`, `in_c`, `out_h`,
            `out_w`, `out_c`, `kernel_h`, `kernel_w`, `stride`. Other keys are ignored.
        input_bytes: of the network's input.
        output_bytes: of its output.

    Raises:
        ValueError: if a record lacks a key, has an unknown op or a size that is no whole number
            above 0; if there are no records; if a number of bytes is negative or not finite.

    Example:
        >>> layer = dict(op="dense", in_h=1, in_w=1, in_c=1024, out_h=1, out_w=1, out_c=1000,
        ...              kernel_h=1, kernel_w=1, stride=1)
        >>> f"{latency_s([layer], 1024, 1000) * 1e3:.2f} ms"
        '0.47 ms'
    """
    for name, value in (("input_bytes", input_bytes), ("output_bytes", output_bytes)):
        if not (isinstance(value, numbers.Real) and 0 <= value < math.inf):
            raise ValueError(f"latency_s needs {name} >= 0, found {value!r}")
    per_layer, fixed = seconds(layers_of(layers), float(input_bytes), float(output_bytes), EXACT)
    return float(per_layer.sum() + fixed)


def layers_of(records: Iterable[Mapping[str, Any]]) -> Layers:
    """The layers of a plain table, see `latency_s`; a bias for every output channel is added."""
    records = list(records)
    if not records:
        raise ValueError("latency_s needs at least one layer, found none")
    for position, record in enumerate(records):
        _check(record, f"layers[{position}]")
    kind = np.asarray([_OPS[record["op"]] for record in records], dtype=object)
    table = np.asarray([[record[name] for name in _SIZES] for record in records], np.float64)
    in_h, in_w, in_c, out_h, out_w, out_c, kernel_h, kernel_w, _ = table.T
    window = kernel_h * kernel_w
    fan_in = np.where(kind == "depthwise conv", 1.0, in_c)
    weighted = np.isin(kind.astype(str), ("conv", "depthwise conv", "dense"))
    return Layers(
        kind=kind,
        window=window,
        height=out_h,
        width=out_w,
        in_height=in_h,
        in_width=in_w,
        in_channels=in_c,
        out_channels=out_c,
        weight_bytes=weighted * (window * fan_in + _BIAS_BYTES) * out_c,
    )


def _check(record: Any, where: str) -> None:
    if not isinstance(record, Mapping):
        raise ValueError(f"{where} must be a mapping with 'op' and sizes, found {record!r}")
    missing = [name for name in ("op", *_SIZES) if name not in record]
    if missing:
        raise ValueError(f"{where} has no {', '.join(map(repr, missing))}; it has {list(record)}")
    if record["op"] not in _OPS:
        raise ValueError(f"{where} has the unknown op {record['op']!r}; known are {list(_OPS)}")
    for name in _SIZES:
        size = record[name]
        if isinstance(size, bool) or not isinstance(size, numbers.Integral) or size < 1:
            raise ValueError(
                f"{where} ({record['op']}) needs a whole number {name} >= 1, found {size!r}"
            )


# ---- What the compiler maps to the Edge TPU

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
