"""How the members of a group agree on the strength of a channel: functions, and a table of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from regularizers.objective.norms import root


def combine_max(strengths: Sequence[Float[Array, " n"]]) -> Float[Array, " n"]:
    """A channel is as strong as its strongest member (MorphNet's default)."""
    if any(isinstance(s, jax.core.Tracer) for s in strengths):
        return reduce(jnp.maximum, strengths)
    return jax.device_put(reduce(np.maximum, map(np.asarray, strengths)))  # compiles nothing


def combine_l2(strengths: Sequence[Float[Array, " n"]]) -> Float[Array, " n"]:
    """The Euclidean norm over members."""
    square = reduce(jnp.add, [jnp.square(s) for s in strengths])
    return root(square)


def combine_any(strengths: Sequence[Float[Array, " n"]]) -> Float[Array, " n"]:
    """1 - prod(1 - p): the probability that any member is on; for gates."""
    return 1.0 - reduce(jnp.multiply, [1.0 - s for s in strengths])


Combination: TypeAlias = Callable[[Sequence[Float[Array, " n"]]], Float[Array, " n"]]

COMBINATIONS: dict[str, Combination] = {
    "max": combine_max,
    "l2": combine_l2,
    "any": combine_any,
}
