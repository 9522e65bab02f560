"""Plain training for the studies: many steps in one compiled loop."""

import math
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import optax


def fitted(
    loss: Callable[[Any, Any, Any], Any],
    params: Any,
    tx: optax.GradientTransformation,
    data: Any,
    key: Any,
    steps: int,
    chunk: int,
) -> Any:
    """Trains, and tells the mean loss of every chunk on stderr.

    Args:
        loss: from the parameters, the data, and a random key to draw a batch with, to a number.
        params: to start with.
        tx: the optimiser.
        data: arrays; no constants of the compiled loop, which would copy them.
        key: a random key.
        steps: in all, a multiple of `chunk`.
        chunk: how many of them in one compiled loop.

    Returns:
        The trained parameters.
    """

    @jax.jit
    def run(params: Any, state: Any, data: Any, keys: Any) -> Any:
        def step(carry: Any, key: Any) -> Any:
            params, state = carry
            value, gradient = jax.value_and_grad(loss)(params, data, key)
            updates, state = tx.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), value

        return jax.lax.scan(step, (params, state), keys)

    state, start = tx.init(params), time.perf_counter()
    for k, keys in enumerate(jax.random.split(key, (steps // chunk, chunk))):
        (params, state), losses = run(params, state, data, keys)
        seconds = time.perf_counter() - start
        told = f"step {(k + 1) * chunk}: loss {losses.mean():.3g}, {seconds:.0f} s"
        print(told, file=sys.stderr, flush=True)
    return params


def size(params: Any) -> int:
    """How many numbers a tree holds."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
