"""The Edge TPU (Coral USB accelerator, int8, batch 1): what a layer costs.

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
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from regularizers.costs.form import Exact, Form, numpy_of
from regularizers.errors import InputError

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
            raise InputError(
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
            raise InputError(f"Layers takes arrays of one length; found the shapes {shapes}")
        unknown = sorted({str(kind) for kind in self.kind} - set(KINDS))
        if unknown:
            raise InputError(f"no kind of layer {unknown}; the Edge TPU model has {sorted(KINDS)}")

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
        layers: n layers in order, all of which the Edge TPU runs (`edge_tpu_operations`).
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
