"""Every kind of cost, for the tests that must hold for all of them."""

import functools
from collections.abc import Callable, Mapping

import regularizers as reg

COSTS: Mapping[str, Callable[..., reg.Cost]] = {
    "flops": reg.flops,
    "size": reg.model_size,
    "activation bytes": reg.activation_bytes,
    "activation peak": functools.partial(reg.activation_bytes, peak=True),
    "V100": functools.partial(reg.latency, device="V100"),
    "energy": reg.energy,
    "edge_tpu": functools.partial(reg.latency, device="edge_tpu"),
}
