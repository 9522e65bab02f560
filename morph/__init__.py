"""Acting on a network: architectures, shrinking, expanding, resizing, training and cycles.

The road: `shrink` -> `Architecture` -> `compact` -> `expand` -> `init`; `cycle` drives all of it.
`tensorize` replaces kernels by tensor networks.
"""

from typing import TYPE_CHECKING

from regularizers.lazy import lazy

if TYPE_CHECKING:
    from morph.architecture.architecture import Architecture
    from morph.architecture.expand import expand
    from morph.architecture.shrink import shrink
    from morph.budget.budget import Budget
    from morph.cycle.config import CycleConfig
    from morph.cycle.cycle import Cycle
    from morph.cycle.workdir import load_variables
    from morph.errors import (
        ArchitectureError,
        BudgetError,
        BudgetWarning,
        DataError,
        LossyPlanWarning,
        NativeError,
        NativeNumbersWarning,
    )
    from morph.kernels.decompose import factorize
    from morph.kernels.factorized import Factorized
    from morph.kernels.tensorized import tensorized
    from morph.modules.native import native
    from morph.network import Network, linen_network, nnx_network
    from morph.pruning.prune import prune, recalibrate
    from morph.pruning.refit import refit
    from morph.resize.compact import compact
    from morph.resize.emission import emits
    from morph.resize.initialize import init
    from morph.tensorize.decision import TensorizePlan
    from morph.tensorize.plan import tensorize_plan
    from morph.training.data import Batch, Pipeline
    from morph.training.metrics import Metric, mean_of
    from morph.training.task import Task
    from regularizers.errors import MorphError
else:
    __getattr__, __dir__ = lazy(__name__)

__version__ = "0.2.0"
__all__ = [
    "Architecture",
    "ArchitectureError",
    "Batch",
    "Budget",
    "BudgetError",
    "BudgetWarning",
    "Cycle",
    "CycleConfig",
    "DataError",
    "Factorized",
    "LossyPlanWarning",
    "Metric",
    "MorphError",
    "NativeError",
    "NativeNumbersWarning",
    "Network",
    "Pipeline",
    "Task",
    "TensorizePlan",
    "compact",
    "emits",
    "expand",
    "factorize",
    "init",
    "linen_network",
    "load_variables",
    "mean_of",
    "native",
    "nnx_network",
    "prune",
    "recalibrate",
    "refit",
    "shrink",
    "tensorize_plan",
    "tensorized",
]
