"""The two readings of a cost that has steps: exact, which is reported, and smooth, for gradients.

A cost is written once, over a `Form`. Written with these functions instead of numpy's, its formula
gives hard steps under `EXACT`, and under `SMOOTH` the same amounts without corners, so that there
is a marginal cost between two steps. Both take numpy arrays (counted in float64) and JAX's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_SHARPNESS = 8.0  # of the smooth maximum: 9 % above two equal values, 0.05 % above 1 and 1/2
_PEAKED = 32.0  # the same for the largest of many: 11 % above thirty equal values


class Form(ABC):
    """What a cost with steps is written in. All functions act elementwise and broadcast."""

    @abstractmethod
    def ceil(self, x: Any) -> Any:
        """The whole steps that `x` >= 0 needs. Smooth: `x`, a part of a step at its share."""

    @abstractmethod
    def maximum(self, a: Any, b: Any) -> Any:
        """The larger of two amounts >= 0. Smooth: their 8-norm."""

    @abstractmethod
    def excess(self, x: Any, scale: float) -> Any:
        """What of `x` is above zero. Smooth: softplus, rounded over about `scale`."""

    @abstractmethod
    def peak(self, x: Any) -> Any:
        """d largest / d x [n] of amounts >= 0: 1 at the first maximum, else 0.

        Smooth: of their 32-norm, so that amounts within a few per cent of the largest count too.
        `(x * peak(x)).sum()` is the largest amount, or the norm.
        """

    def minimum(self, a: Any, b: Any) -> Any:
        """The smaller of two amounts >= 0; with `maximum` it adds up to their sum."""
        return a + b - self.maximum(a, b)


class Exact(Form):
    """Hard steps and corners."""

    def ceil(self, x: Any) -> Any:
        """The integer at or above `x`; in float32 an excess below its precision is forgiven."""
        slack = 1e-6 if isinstance(x, jax.Array) else 1e-9
        return numpy_of(x).ceil(x * (1.0 - slack))

    def maximum(self, a: Any, b: Any) -> Any:
        """The larger."""
        return numpy_of(a, b).maximum(a, b)

    def excess(self, x: Any, scale: float) -> Any:
        """`max(x, 0)`."""
        del scale
        return numpy_of(x).maximum(x, 0.0)

    def peak(self, x: Any) -> Any:
        """One-hot at the first maximum."""
        xp = numpy_of(x)
        return xp.asarray(xp.arange(x.size) == xp.argmax(x), x.dtype)


class Smooth(Form):
    """Without steps and corners; for gradients."""

    def ceil(self, x: Any) -> Any:
        """`x` itself."""
        return x

    def maximum(self, a: Any, b: Any) -> Any:
        """The 8-norm of the two, which is at most 9 % above the larger."""
        xp = numpy_of(a, b)
        top = xp.maximum(a, b)
        some = top > 0.0
        scale = xp.where(some, top, 1.0)
        if xp is jnp:
            scale = jax.lax.stop_gradient(scale)  # it cancels
        powers = (a / scale) ** _SHARPNESS + (b / scale) ** _SHARPNESS
        return xp.where(some, scale * xp.where(some, powers, 1.0) ** (1.0 / _SHARPNESS), 0.0)

    def excess(self, x: Any, scale: float) -> Any:
        """`scale * log(1 + exp(x / scale))`."""
        return scale * numpy_of(x).logaddexp(x / scale, 0.0)

    def peak(self, x: Any) -> Any:
        """The derivative of the 32-norm."""
        xp = numpy_of(x)
        top = xp.maximum(x.max(), 1e-30)
        if xp is jnp:
            top = jax.lax.stop_gradient(top)  # it cancels
        norm = ((x / top) ** _PEAKED).sum() ** (1.0 / _PEAKED)
        return (x / top / norm) ** (_PEAKED - 1.0)


EXACT, SMOOTH = Exact(), Smooth()


def numpy_of(*values: Any) -> Any:
    """`jax.numpy` if a value is JAX's, else numpy."""
    return jnp if any(isinstance(value, jax.Array) for value in values) else np
