"""The Edge TPU model of `edge_tpu`, on a channel graph.

The compiler maps operations until the first one that it does not know; that and everything after
it runs on the host, which is priced by the roofline of a Coral Dev Board's CPU, and the arrays
between the two cross the link. What is fused with a product or convolution (bias, batch norm,
activation) is no layer of its own. The overhead of an operation on the host is not known: small
ones seem cheaper there than they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from regularizers.channels.graph import ChannelGraph
from regularizers.costs.cost import Cost, Line
from regularizers.costs.devices import DEVICES
from regularizers.costs.edge_tpu import EDGE_TPU, IN_STEP, KINDS, EdgeTPU, Layers, seconds
from regularizers.costs.edge_tpu_operations import unsupported
from regularizers.costs.form import Exact, Form, numpy_of
from regularizers.costs.kernels import Kernel, Value
from regularizers.costs.roofline import kernel_seconds
from regularizers.costs.sizes import named_amounts
from regularizers.costs.work import Work, Workload, workload_of

HOST = DEVICES["Cortex-A53"]
_BIAS_BYTES = 4.0


def edge_tpu_latency(graph: ChannelGraph, tpu: EdgeTPU = EDGE_TPU) -> Cost:
    """Seconds of one int8 inference of one example on a Coral USB accelerator.

    The first axis of arrays is taken for the batch, whatever its size.

    Args:
        graph: the channel graph of the network.
        tpu: the constants of the model.
    """
    load = workload_of(graph)
    batch = batch_of(load.schedule.inputs)
    kernels, facts = load.schedule.kernels, load.facts
    reasons = unsupported_kernels(load)
    is_host = np.cumsum([bool(reason) for reason in reasons]) > 0  # at any widths
    over_channels = np.asarray([_over_channels(kernel) for kernel in kernels], bool)
    layer = np.asarray([k.kind in KINDS and not _is_fused(k) for k in kernels], bool) & ~is_host
    chosen = np.flatnonzero(layer)
    slot = np.where(layer, np.cumsum(layer) - 1, len(chosen))  # of what is no layer: one past
    arrays, made, used = _transfers(load)
    sizes, tables = named_amounts(
        list(graph.widths), {"elements": [[value.elements] for value in arrays]}
    )

    def amounts(widths: Any, form: Form) -> Any:
        work = load.at(widths)
        xp = numpy_of(widths)
        on_host = xp.asarray(is_host)
        odd = work.facts.kind == "grouped conv"
        if isinstance(form, Exact):  # means over channels are mapped for multiples of 4 only
            odd = odd | (over_channels & (xp.round(work.in_channels) % IN_STEP != 0))
        on_host = on_host | (xp.cumsum(xp.asarray(odd)) > 0)
        on_tpu = xp.where(on_host, 0.0, 1.0)
        layers = Layers(
            kind=work.facts.kind[chosen],
            window=facts.window[chosen],
            height=facts.height[chosen],
            width=facts.width[chosen],
            in_height=facts.in_height[chosen],
            in_width=facts.in_width[chosen],
            in_channels=(work.in_channels * on_tpu)[chosen],
            out_channels=(work.out_channels * on_tpu)[chosen],
            weight_bytes=(_weight_bytes(work, xp) * on_tpu)[chosen],
        )
        where = xp.concatenate([on_tpu, xp.zeros(1, on_tpu.dtype)])  # the last is the host
        elements = tables["elements"](sizes(widths)) / batch
        sent = (elements * (1.0 - where[made]) * where[used]).sum()
        returned = (elements * where[made] * (1.0 - where[used])).sum()
        per_layer, fixed = seconds(layers, sent, returned, form, tpu)
        per_kernel = xp.concatenate([per_layer, xp.zeros(1, per_layer.dtype)])[slot]
        host = kernel_seconds(work, form, HOST, "int8") * facts.count / batch
        fixed = xp.reshape(fixed * where[0], 1)  # nothing if the first kernel is for the host
        return xp.concatenate([per_kernel + host * (1.0 - on_tpu), fixed])

    lines = [
        Line(layer=line.layer, detail=f"{line.detail} (host)") if there else line
        for line, there in zip(load.lines, is_host, strict=True)
    ]
    return Cost(
        name="latency_edge_tpu",
        unit="s",
        groups=graph.widths,
        lines=(*lines, Line(layer="(start, input, output)", detail="")),
        amounts=amounts,
    )


def _transfers(load: Workload) -> tuple[list[Value], np.ndarray, np.ndarray]:
    """What may cross between host and Edge TPU: arrays, and where they are made and used.

    Returns:
        Arrays; the kernel that makes each and the last one that needs it [arrays], where the
        number of kernels stands for the host.
    """
    kernels = load.schedule.kernels
    made = dict.fromkeys((*load.schedule.inputs, *load.schedule.states), len(kernels))
    used: dict[Value, int] = {}
    for k, kernel in enumerate(kernels):
        made |= dict.fromkeys(kernel.stores, k)
        used |= dict.fromkeys(kernel.reads, k)
    first = {value: k for k, kernel in reversed(list(enumerate(kernels))) for value in kernel.reads}
    # An input is sent to its first reader; what the Edge TPU makes is returned to the last one.
    used |= {value: first[value] for value in load.schedule.inputs if value in first}
    used |= dict.fromkeys(load.schedule.outputs, len(kernels))
    arrays = [value for value in made if value in used]
    return (
        arrays,
        np.asarray([made[value] for value in arrays], np.int64),
        np.asarray([used[value] for value in arrays], np.int64),
    )


def unsupported_kernels(load: Workload) -> list[str]:
    """For every kernel, why the compiler would not map it; "" if it would, at good widths."""
    return [
        "control flow is not mapped" if kernel.scope else _unsupported(kernel, load, k)
        for k, kernel in enumerate(load.schedule.kernels)
    ]


def _unsupported(kernel: Kernel, load: Workload, k: int) -> str:
    facts = load.facts
    return unsupported(
        "depthwise conv" if kernel.kind == "grouped conv" else kernel.kind,  # if it becomes one
        primitives=kernel.primitives,
        dilation=kernel.dilation or (1, 1),
        rank=max((len(v.axes) for v in (*kernel.reads, *kernel.writes)), default=0),
        rows=int(facts.height[k] * facts.width[k]) if kernel.kind == "dense" else 1,
    )


def batch_of(inputs: Sequence[Value]) -> int:
    """The first axis of the first input that has more than one."""
    return next(
        (max(1, v.axes[0]) for v in inputs if len(v.axes) > 1 and isinstance(v.axes[0], int)), 1
    )


def _weight_bytes(work: Work, xp: Any) -> Any:
    return work.weights + _BIAS_BYTES * work.out_channels * xp.where(work.weights > 0, 1.0, 0.0)


def _is_fused(kernel: Kernel) -> bool:
    """Whether an elementwise kernel is the end of the kernel before it."""
    if kernel.kind != "elementwise" or len(kernel.reads) != 1:
        return False
    before = kernel.reads[0].kernel
    return before is not None and before.kind != "elementwise"


def _over_channels(kernel: Kernel) -> bool:
    return -1 in kernel.reduced and _rank(kernel.reads) > 1


def _rank(values: Sequence[Value]) -> int:
    return max((len(value.axes) for value in values), default=0)
