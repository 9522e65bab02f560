"""Acting on a network: architectures, shrinking, expanding, resizing, training and cycles.

The road: `shrink` -> `Architecture` -> `compact` -> `expand` -> `init`; `cycle` drives all of it.
"""

from morph.architecture import Architecture
from morph.checkpoint import load_variables
from morph.config import CycleConfig
from morph.cycle import Cycle
from morph.data import Batch, DataError, Pipeline
from morph.expand import BudgetError, expand
from morph.initialize import init
from morph.native.native import native
from morph.native.widths import NativeError
from morph.network import Network, linen_network, nnx_network
from morph.resize.compact import compact
from morph.resize.emission import emits
from morph.shrink import shrink
from morph.spec import ArchitectureError

__all__ = [
    "Architecture",
    "ArchitectureError",
    "Batch",
    "BudgetError",
    "Cycle",
    "CycleConfig",
    "DataError",
    "NativeError",
    "Network",
    "Pipeline",
    "compact",
    "emits",
    "expand",
    "init",
    "linen_network",
    "load_variables",
    "native",
    "nnx_network",
    "shrink",
]
