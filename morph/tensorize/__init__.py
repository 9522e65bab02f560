"""Tensorize: kernels as tensor networks.

Read in this order: `contract` (one contraction), `factorized` (a kernel as cores), `shapes` and
`formats` (which cores), `vbmf`, `spectra`, `ranks`, `canonical` and `decompose` (ranks, numbers),
`initial` (or fresh ones), `products`, `windows` and `evaluate` (what a factorized kernel does where
it is used), `measure` (the faster way), `tensorized` (the function transformation), `layers` (which
kernels a function has), `planned` (how one is factorized), `options`, `allocate`, `budget` and
`plan` (which of them, at which ranks), `following`, `samples`, `response` and `fit` (the same by
what layers answer on a calibration batch).
"""

from typing import TYPE_CHECKING

from regularizers.lazy import lazy

if TYPE_CHECKING:
    from morph.kernels.decompose import factorize
    from morph.kernels.factorized import Factorized
    from morph.kernels.tensorized import settled, tensorized
    from morph.tensorize.decision import TensorizePlan
    from morph.tensorize.diagram import to_dot
    from morph.tensorize.flax import linen_layers, nnx_layers
    from morph.tensorize.plan import tensorize_plan
else:
    __getattr__, __dir__ = lazy(__name__)

__all__ = [
    "Factorized",
    "TensorizePlan",
    "factorize",
    "linen_layers",
    "nnx_layers",
    "settled",
    "tensorize_plan",
    "tensorized",
    "to_dot",
]
