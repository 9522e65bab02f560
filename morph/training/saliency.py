"""How much the loss minds each channel of a network as it is, measured when it is to be cut.

The optimizer's running average (`ProximalState.saliency`) is of weights of many steps ago, which at
high learning rates were others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from morph.training.data import Batch, nth
from morph.training.step import Objective, TrainState
from regularizers.host import on_host
from regularizers.objective.regularizer import NetworkRegularizer

# Of a state, the whole set or None, the examples or batches of some steps, and a random key.
Saliency: TypeAlias = Callable[[TrainState, Batch | None, Any, Any], dict[str, np.ndarray]]


def make_saliency(objective: Objective, regularizer: NetworkRegularizer) -> Saliency:
    """Measures the mean over batches of the squared slope of the loss along each channel.

    Source: Molchanov et al. 2019, "Importance estimation for neural network pruning", with gates.

    Args:
        objective: what is minimised.
        regularizer: whose channels; those with gates have no saliency.

    Returns:
        A function that is compiled once; arguments as of a `Step`. It gives [width] by group.
    """

    @jax.jit
    def squares(
        state: TrainState, data: Batch | None, chunk: Any, i: Any, key: Any
    ) -> dict[str, Any]:
        minimised = objective(state, nth(data, chunk, i), jax.random.fold_in(key, i))
        grads, _ = jax.grad(minimised, has_aux=True)(state.params)
        return {name: jnp.square(s) for name, s in regularizer.slopes(state.params, grads).items()}

    def saliency(
        state: TrainState, data: Batch | None, chunk: Any, key: Any
    ) -> dict[str, np.ndarray]:
        count = len(jax.tree.leaves(chunk)[0])
        # One after the other: many programs at once can keep several processes from each other.
        each = [on_host(squares(state, data, chunk, np.int32(i), key)) for i in range(count)]
        return {name: np.mean([one[name] for one in each], axis=0) for name in each[0]}

    return saliency
