"""Acting on a network: architectures, shrinking, expanding, resizing, training and cycles.

The road: `shrink` -> `Architecture` -> `compact` -> `expand` -> `init`; `cycle` drives all of it.
"""

from morph.architecture import Architecture, ArchitectureError
from morph.cycle import Cycle, CycleConfig, load_variables
from morph.expand import BudgetError, expand
from morph.initialize import init
from morph.network import Network, linen_network, nnx_network
from morph.resize.compact import compact
from morph.shrink import shrink

__all__ = [
    "Architecture",
    "ArchitectureError",
    "BudgetError",
    "Cycle",
    "CycleConfig",
    "Network",
    "compact",
    "expand",
    "init",
    "linen_network",
    "load_variables",
    "nnx_network",
    "shrink",
]
