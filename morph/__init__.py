"""Acting on a network: architectures, shrinking, expanding, resizing, training and cycles.

The road: `shrink` -> `Architecture` -> `compact` -> `expand` -> `init`; `cycle` drives all of it.
`tensorize` replaces kernels by tensor networks.
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
from morph.tensorize.decompose import factorize
from morph.tensorize.factorized import Factorized
from morph.tensorize.plan import TensorizePlan, tensorize_plan
from morph.tensorize.tensorized import tensorized

__all__ = [
    "Architecture",
    "ArchitectureError",
    "Batch",
    "BudgetError",
    "Cycle",
    "CycleConfig",
    "DataError",
    "Factorized",
    "NativeError",
    "Network",
    "Pipeline",
    "TensorizePlan",
    "compact",
    "emits",
    "expand",
    "factorize",
    "init",
    "linen_network",
    "load_variables",
    "native",
    "nnx_network",
    "shrink",
    "tensorize_plan",
    "tensorized",
]
