"""Roofline latency: every kernel takes as long as its arithmetic or its memory traffic.

    seconds = max(FLOPs / peak, bytes / bandwidth)     (Williams et al. 2009)

As in MorphNet, the bytes of a product or convolution are those of its operands and its result, and
elementwise kernels are taken to be fused, that is free. Poolings, reductions and movements of data
are traffic alone.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from regularizers.channels.graph import ChannelGraph
from regularizers.costs.cost import Cost
from regularizers.costs.devices import Device
from regularizers.costs.form import Form
from regularizers.costs.work import Work, cost_of_work


def roofline(graph: ChannelGraph, device: Device, dtype: str | None = None) -> Cost:
    """Seconds of one call at the traced batch size, at the most a device can do.

    Args:
        graph: the channel graph of the network.
        device: its peak figures.
        dtype: of all operands; the device's `default_dtype` if not given.

    Raises:
        ValueError: if the device has no peak for the type.
    """
    chosen = dtype or device.default_dtype
    device.peak(chosen)  # raises before anything is counted
    return cost_of_work(
        graph,
        f"latency_{device.name}_{chosen}",
        "s",
        lambda work, form: kernel_seconds(work, form, device, chosen),
    )


def kernel_seconds(work: Work, form: Form, device: Device, dtype: str) -> Any:
    """Seconds of one run of every kernel [kernels], at the most that a device can do."""
    itemsize = float(jnp.dtype(dtype).itemsize)
    traffic = work.elements * np.where(work.facts.kind == "elementwise", 0.0, itemsize)
    return form.maximum(work.flops / device.peak(dtype), traffic / device.bytes_per_s)
