"""Acting on a network: architectures, shrinking, expanding, resizing, training and cycles.

The road: `shrink` -> `Architecture` -> `compact` -> `expand` -> `init`; `cycle` drives all of it.
"""

from morph.architecture import Architecture, ArchitectureError
from morph.expand import BudgetError, expand
from morph.resize.compact import compact
from morph.shrink import shrink

__all__ = ["Architecture", "ArchitectureError", "BudgetError", "compact", "expand", "shrink"]
