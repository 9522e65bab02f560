"""Values that stand where kernels stood: tensor networks and compressed kernels.

What takes a kernel apart loads when it is first used: it brings SciPy's optimizers, tensornetwork
and tensorly.
"""

from typing import TYPE_CHECKING

from regularizers.lazy import lazy

if TYPE_CHECKING:
    from morph.kernels.decompose import factorize, factorize_stack
else:
    __getattr__, __dir__ = lazy(__name__)

__all__ = ["factorize", "factorize_stack"]
