"""The Edge TPU's latency of a network that is given as a plain table of its layers."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from regularizers.costs.edge_tpu import Layers, seconds
from regularizers.costs.form import EXACT
from regularizers.errors import InputError

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
            raise InputError(f"latency_s needs {name} >= 0, found {value!r}")
    per_layer, fixed = seconds(layers_of(layers), float(input_bytes), float(output_bytes), EXACT)
    return float(per_layer.sum() + fixed)


def layers_of(records: Iterable[Mapping[str, Any]]) -> Layers:
    """The layers of a plain table, see `latency_s`; a bias for every output channel is added."""
    records = list(records)
    if not records:
        raise InputError("latency_s needs at least one layer, found none")
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
        raise InputError(f"{where} must be a mapping with 'op' and sizes, found {record!r}")
    missing = [name for name in ("op", *_SIZES) if name not in record]
    if missing:
        raise InputError(f"{where} has no {', '.join(map(repr, missing))}; it has {list(record)}")
    if record["op"] not in _OPS:
        raise InputError(f"{where} has the unknown op {record['op']!r}; known are {list(_OPS)}")
    for name in _SIZES:
        size = record[name]
        if isinstance(size, bool) or not isinstance(size, numbers.Integral) or size < 1:
            raise InputError(
                f"{where} ({record['op']}) needs a whole number {name} >= 1, found {size!r}"
            )
