"""Costs by name, for command lines and files: `flops`, `edge_tpu`, `0.5*flops + 0.5*V100`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path

from regularizers.calibration.machine import cache_path
from regularizers.calibration.measure import calibrate
from regularizers.channels.graph import GRAPH, ChannelGraph
from regularizers.checks import NAME, checked
from regularizers.costs.activation import activation_bytes
from regularizers.costs.calibrated import Calibration
from regularizers.costs.cost import Cost, weighted
from regularizers.costs.devices import DEVICES
from regularizers.costs.energy import energy
from regularizers.costs.flops import flops
from regularizers.costs.latency import EDGE_TPU_NAME, latency
from regularizers.costs.size import model_size
from regularizers.vocabulary import check_name


def latency_here(graph: ChannelGraph) -> Cost:
    """Seconds of one call on this machine, which is calibrated if it has not been."""
    return latency(graph, _once(calibrate, cache_path()))


@cache
def _once(timed: Callable[[], Calibration], file: Path | None) -> Calibration:
    """A calibration, the same for a whole process, whether it can be kept in a file or not."""
    del file  # it names the device and the versions
    return timed()


# A new cost is a function and a row here; its name is in `vocabulary.py`, too.
COSTS: Mapping[str, Callable[[ChannelGraph], Cost]] = {
    "flops": flops,
    "size": model_size,
    "activation_bytes": activation_bytes,
    "activation_peak": partial(activation_bytes, peak=True),
    "energy": energy,
    EDGE_TPU_NAME: partial(latency, device=EDGE_TPU_NAME),
    "here": latency_here,
    **{name: partial(latency, device=name) for name in DEVICES},
}


@checked(graph=GRAPH, spec=NAME)
def cost_named(graph: ChannelGraph, spec: str) -> Cost:
    """The cost of that name, or the weighted sum of several.

    Args:
        graph: the channel graph of the network.
        spec: a name of `COSTS`, or e.g. `"0.5*flops + 0.5*edge_tpu"`.

    Raises:
        ValueError: if a name is unknown (the message lists near matches), or a weight is none.
    """
    terms = check_name(spec)
    if terms == ((1.0, spec),):
        return COSTS[spec](graph)
    return weighted([(weight, COSTS[name](graph)) for weight, name in terms])
