"""Latency: seconds of one call, on a device of the table, the Edge TPU, or this machine."""

from __future__ import annotations

from regularizers.channels.graph import GRAPH, ChannelGraph
from regularizers.checks import DTYPE, checked
from regularizers.costs.calibrated import Calibration
from regularizers.costs.cost import Cost
from regularizers.costs.devices import DEVICES, Device
from regularizers.costs.edge_tpu import EdgeTPU
from regularizers.costs.edge_tpu_network import edge_tpu_latency
from regularizers.costs.roofline import roofline
from regularizers.costs.work import cost_of_work
from regularizers.errors import InputError, InputTypeError
from regularizers.messages import near

EDGE_TPU_NAME = "edge_tpu"


@checked(graph=GRAPH, dtype=DTYPE)
def latency(
    graph: ChannelGraph,
    device: str | Device | EdgeTPU | Calibration,
    dtype: str | None = None,
) -> Cost:
    """Seconds of one call at the traced batch size.

    Args:
        graph: the channel graph of the network.
        device: `"edge_tpu"`, a name of `reg.DEVICES` or a `reg.Device` of your own (a roofline:
            what is possible at most), or what `reg.calibrate()` returned (what this machine does).
        dtype: of the operands, for a roofline.

    Raises:
        ValueError: if the device is unknown (the message lists the known ones), or has no figure
            for the type.
        TypeError: if it is no device.

    Example:
        >>> reg.latency(graph, "V100")(), reg.latency(graph, reg.calibrate())()  # doctest: +SKIP
    """
    if isinstance(device, str):
        if device == EDGE_TPU_NAME:
            return edge_tpu_latency(graph)
        if device not in DEVICES:
            known = [EDGE_TPU_NAME, *DEVICES]
            raise InputError(
                f"unknown device {device!r}{near(device, known)} All: {', '.join(known)}; "
                "or a reg.Device of your own, or what reg.calibrate() returns."
            )
        device = DEVICES[device]
    if isinstance(device, Device):
        return roofline(graph, device, dtype)
    if isinstance(device, EdgeTPU):
        return edge_tpu_latency(graph, device)
    if isinstance(device, Calibration):
        return cost_of_work(graph, "latency_here", "s", device.seconds)
    raise InputTypeError(
        f"device must be a name, a reg.Device or what reg.calibrate() returns, found {device!r}"
    )
