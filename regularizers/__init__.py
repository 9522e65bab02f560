"""Structure analysis of JAX functions: channel groups, what a width costs, what the loss pays.

The road: `trace_channels` -> a cost (`flops`, `model_size`, `latency`, ...) -> `NetworkRegularizer`
-> your loss, or `proximal` around your optimizer. Useful alone, with a training loop of your own.
"""

from typing import TYPE_CHECKING

from regularizers.lazy import lazy

if TYPE_CHECKING:
    from regularizers.calibration.measure import calibrate
    from regularizers.channels.custom import couples
    from regularizers.channels.graph import ChannelGraph
    from regularizers.channels.parts import Group
    from regularizers.channels.trace import trace_channels
    from regularizers.costs.activation import activation_bytes
    from regularizers.costs.calibrated import Calibration
    from regularizers.costs.cost import Cost
    from regularizers.costs.devices import DEVICES, Device
    from regularizers.costs.energy import energy
    from regularizers.costs.flops import flops
    from regularizers.costs.latency import latency
    from regularizers.costs.size import model_size
    from regularizers.costs.work import cost_of_work
    from regularizers.errors import DeadGroupWarning, MorphError
    from regularizers.named import cost_named
    from regularizers.nnx import nnx_function
    from regularizers.objective.proximal import proximal
    from regularizers.objective.regularizer import NetworkRegularizer
else:
    __getattr__, __dir__ = lazy(__name__)

__all__ = [
    "DEVICES",
    "Calibration",
    "ChannelGraph",
    "Cost",
    "DeadGroupWarning",
    "Device",
    "Group",
    "MorphError",
    "NetworkRegularizer",
    "activation_bytes",
    "calibrate",
    "cost_named",
    "cost_of_work",
    "couples",
    "energy",
    "flops",
    "latency",
    "model_size",
    "nnx_function",
    "proximal",
    "trace_channels",
]
