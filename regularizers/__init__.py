"""Structure analysis of JAX functions: channel groups, what a width costs, what the loss pays.

The road: `trace_channels` -> a cost (`flops`, `model_size`) -> `NetworkRegularizer` -> your loss,
or `proximal` around your optimizer. Useful alone, with a training loop of your own.
"""

from regularizers.channels.custom import couples
from regularizers.channels.graph import ChannelGraph, Group, trace_channels
from regularizers.costs.cost import Cost
from regularizers.costs.flops import flops
from regularizers.costs.size import model_size
from regularizers.nnx import nnx_function
from regularizers.objective import NetworkRegularizer
from regularizers.proximal import proximal

__all__ = [
    "ChannelGraph",
    "Cost",
    "Group",
    "NetworkRegularizer",
    "couples",
    "flops",
    "model_size",
    "nnx_function",
    "proximal",
    "trace_channels",
]
