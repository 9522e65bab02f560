"""The proximal form: an optax optimizer that makes channels exactly zero."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from regularizers.checks import FUNCTION, OPTIMIZER, a, checked, number
from regularizers.errors import InputError
from regularizers.objective.regularizer import NetworkRegularizer

MEMORY = 0.97  # of the average of squared derivatives, per step


class ProximalState(NamedTuple):
    """The state of the wrapped optimizer, and what a budget controller may set between steps.

    Attributes:
        inner: the wrapped optimizer's state.
        steps: steps so far.
        strength: the strength in force; kept up by the schedule if one was given.
        protected: channels that are not pulled to zero, by group.
        held: channels that stay zero, by group.
        saliency: of every channel, by group: the average square of the loss's derivative by a
            factor on it (Molchanov et al. 2019, with gates), over the last steps; none of gates.
    """

    inner: Any
    steps: Int[Array, ""]
    strength: Float[Array, ""]
    protected: dict[str, Bool[Array, " width"]]
    held: dict[str, Bool[Array, " width"]]
    saliency: dict[str, Float[Array, " width"]]


@checked(
    optimizer=OPTIMIZER,
    regularizer=a(NetworkRegularizer, "a reg.NetworkRegularizer"),
    strength=number(least=0.0) | FUNCTION,
)
def proximal(
    optimizer: optax.GradientTransformation,
    regularizer: NetworkRegularizer,
    strength: float | Float[Array, ""] | Callable[[Any], Any] = 1e-2,
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer so that each update ends with a group soft-threshold.

    After the optimizer's own update every channel's strength falls by strength x marginal cost;
    what would fall below zero becomes exactly zero, so that shrinking changes the function by
    nothing but rounding (forward-backward splitting, Combettes and Wajs 2005).

    Args:
        optimizer: any optax transformation.
        regularizer: measures strengths and marginal costs.
        strength: per step, dimensionless; a number or a schedule of the step.

    Returns:
        An optax transformation; `update` needs `params`.

    Example:
        >>> tx = proximal(optax.sgd(0.1), regularizer, strength=1e-2)  # doctest: +SKIP
    """
    wrapped = optax.with_extra_args_support(optimizer)

    def init(params: Any) -> ProximalState:
        first = strength(0) if callable(strength) else strength
        none = {g.group: jnp.zeros(g.width, bool) for g in regularizer.groups}
        return ProximalState(
            wrapped.init(params),
            jnp.zeros((), jnp.int32),
            jnp.asarray(first, jnp.float32),
            none,
            jax.tree.map(jnp.copy, none),
            {g.group: jnp.zeros(g.width) for g in regularizer.groups if g.pull.scaled},
        )

    def update(
        updates: Any, state: ProximalState, params: Any = None, **extra: Any
    ) -> tuple[Any, ProximalState]:
        if params is None:
            raise InputError("proximal needs the parameters: call update(grads, state, params)")
        gradients = updates
        updates, inner = wrapped.update(gradients, state.inner, params, **extra)
        updates = jax.tree.map(_stay_dead, updates, gradients, params, regularizer.resting(params))
        now = strength(state.steps) if callable(strength) else state.strength
        moved = optax.apply_updates(params, updates)
        pulled = regularizer.shrink_step(moved, now, state.protected, state.held, params)
        # p + (q - p) is exactly 0 where q is 0, so that dead stays dead to the last bit.
        updates = jax.tree.map(lambda q, p: q - p, pulled, params)
        now = jnp.asarray(now, jnp.float32)
        slopes = regularizer.slopes(params, gradients)
        saliency = {
            name: MEMORY * old + (1.0 - MEMORY) * jnp.square(slopes[name])
            for name, old in state.saliency.items()
        }
        return updates, ProximalState(
            inner, state.steps + 1, now, state.protected, state.held, saliency
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _stay_dead(update: Any, gradient: Any, parameter: Any, resting: float) -> Any:
    """Stale momentum does not wake a dead channel; only a gradient does."""
    if math.isnan(resting):
        return update
    return jnp.where((parameter == resting) & (gradient == 0.0), jnp.zeros_like(update), update)
