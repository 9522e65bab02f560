"""What a picture of costs shows: what every row costs, and where products lie under a roofline."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from experiments.console.display import humanize
from regularizers.channels.graph import ChannelGraph
from regularizers.costs.cost import SEEDS, Cost
from regularizers.costs.devices import DEVICES
from regularizers.costs.edge_tpu import EDGE_TPU
from regularizers.costs.edge_tpu_network import batch_of
from regularizers.costs.flops import operation_name
from regularizers.costs.form import EXACT
from regularizers.costs.latency import EDGE_TPU_NAME
from regularizers.costs.work import workload_of

MOST_ROWS = 40
_LEAST_SHARE = 0.01  # of any cost; below it what is no product is not worth a row
NO_PRODUCT, REST = "no product", "rest"


@dataclass(frozen=True, kw_only=True)
class Bars:
    """What every row of the picture costs.

    Attributes:
        rows: the names, in the order of the network.
        kinds: of each, the kind of its product.
        costs: of each, {name of a cost: cost}.
    """

    rows: tuple[str, ...]
    kinds: tuple[str, ...]
    costs: Mapping[str, tuple[float, ...]]


def bars_of(graph: ChannelGraph, costs: Mapping[str, Cost]) -> Bars:
    """The layers with a product, and what else costs at least 1 %; the rest in one row.

    Args:
        graph: the channel graph of the network.
        costs: {what it is called: cost}.
    """
    kinds: dict[str, str] = {}
    for operation in graph.operations:
        kinds.setdefault(operation.layer, operation_name(operation)[0])
    order = list(dict.fromkeys(line.layer for line in workload_of(graph).lines))
    totals: dict[str, dict[str, float]] = {name: defaultdict(float) for name in costs}
    shares: dict[str, float] = defaultdict(float)  # of the cost where it is the largest
    for name, cost in costs.items():
        total, place = totals[name], 0
        for row in cost.table():
            if row.layer not in order:  # stands behind what it stands behind in the table
                order.insert(place, row.layer)
            place = order.index(row.layer) + 1
            total[row.layer] += row.cost
        whole = sum(total.values()) or 1.0
        for layer, value in total.items():
            shares[layer] = max(shares[layer], value / whole)
    worthy = [layer for layer in order if layer in kinds or shares[layer] >= _LEAST_SHARE]
    chosen = {*sorted(worthy, key=lambda layer: -shares[layer])[:MOST_ROWS]}
    rows = [layer for layer in order if layer in chosen]
    rest = [layer for layer in order if layer not in chosen and shares[layer] > 0.0]
    last = [f"{len(rest)} others"] if rest else []
    return Bars(
        rows=(*rows, *last),
        kinds=(*(kinds.get(layer, NO_PRODUCT) for layer in rows), *(REST for _ in last)),
        costs={
            name: (*(total[x] for x in rows), *(sum(total[x] for x in rest) for _ in last))
            for name, total in totals.items()
        },
    )


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One product or convolution: what it does per byte and second, and its share of the time."""

    layer: str
    kind: str
    flops_per_byte: float
    flops_per_s: float
    share: float


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """The products of a network on a device.

    Attributes:
        name: what the device is called.
        dots: its products, in order.
        peak_flops_per_s: that nothing can exceed; 0 if unknown.
        bytes_per_s: of its memory; 0 if unknown.
        dtype: of the operands.
    """

    name: str
    dots: tuple[Dot, ...]
    peak_flops_per_s: float = 0.0
    bytes_per_s: float = 0.0
    dtype: str


def roofline_of(graph: ChannelGraph, name: str, cost: Cost) -> Roofline | None:
    """Where the products of a network lie; None if `cost` is not the time of its kernels.

    The roof is what a device of `reg.DEVICES` can do at most, or the vendor's peak of the Edge TPU,
    whose figure for memory nobody knows. Of this machine none is known.

    Args:
        graph: the channel graph of the network.
        name: of the cost.
        cost: in seconds.
    """
    load = workload_of(graph)
    layers = [line.layer for line in load.lines]
    if cost.unit != "s" or cost.terms or [x.layer for x in cost.lines[: len(layers)]] != layers:
        return None
    peak = bandwidth = 0.0
    examples, dtype = 1, "float32"
    if name in DEVICES:
        device = DEVICES[name]
        dtype = device.default_dtype
        peak, bandwidth = device.peak(dtype), device.bytes_per_s
    elif name == EDGE_TPU_NAME:
        tpu, dtype = EDGE_TPU, "int8"
        peak = 2.0 * tpu.tile**2 * tpu.in_step * tpu.out_step * tpu.clock_hz
        examples = batch_of(load.schedule.inputs)  # its cost is of one of them
    widths = cost.vector()
    work = load.at(widths)
    seconds = np.asarray(cost.amounts(widths, EXACT))[: len(layers)]
    flops = np.asarray(work.flops) / examples
    traffic = (np.asarray(work.read + work.written) / examples + np.asarray(work.weights)) * (
        jnp.dtype(dtype).itemsize
    )
    return Roofline(
        name=name,
        dots=tuple(
            Dot(
                layer=layers[k],
                kind=str(work.facts.kind[k]),
                flops_per_byte=float(flops[k] / traffic[k]),
                flops_per_s=float(flops[k] * load.facts.count[k] / seconds[k]),
                share=float(seconds[k]) / (cost.seed or 1.0),
            )
            for k in range(len(layers))
            if flops[k] > 0.0 and seconds[k] > 0.0
        ),
        peak_flops_per_s=peak,
        bytes_per_s=bandwidth,
        dtype=dtype,
    )


def in_words(value: float, unit: str) -> str:
    """A cost with three digits, e.g. `1.25 ms`, `78.0 k parameters`."""
    if unit == SEEDS:
        return f"{value:.4f} {unit}"
    return humanize(value, unit) if len(unit) <= len("FLOP") else f"{humanize(value)} {unit}"
