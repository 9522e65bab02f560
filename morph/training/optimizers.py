"""Optimizers by name: one schedule of the learning rate, weight decay on kernels, clipping."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax


def kernels(params: Any) -> Any:
    """Which parameters decay: those with more than one axis, no biases and scales of norms."""
    return jax.tree.map(lambda leaf: jnp.ndim(leaf) > 1, params)


def _decayed(
    optimizer: optax.GradientTransformation, weight_decay: float
) -> optax.GradientTransformation:
    """With an L2 penalty on kernels, in the gradient."""
    return optax.chain(optax.add_decayed_weights(weight_decay, mask=kernels), optimizer)


Optimizer = Callable[[Any, float], optax.GradientTransformation]  # of a schedule, a weight decay

OPTIMIZERS: Mapping[str, Optimizer] = {
    "momentum": lambda rate, decay: _decayed(optax.sgd(rate, momentum=0.9, nesterov=True), decay),
    "sgd": lambda rate, decay: _decayed(optax.sgd(rate), decay),
    "adam": lambda rate, decay: _decayed(optax.adam(rate), decay),
    "rmsprop": lambda rate, decay: _decayed(optax.rmsprop(rate, momentum=0.9), decay),
    "adamw": lambda rate, decay: optax.adamw(rate, weight_decay=decay, mask=kernels),
    "lamb": lambda rate, decay: optax.lamb(rate, weight_decay=decay, mask=kernels),
    "lars": lambda rate, decay: optax.lars(
        rate, weight_decay=decay, weight_decay_mask=kernels, trust_ratio_mask=kernels, momentum=0.9
    ),
    "lion": lambda rate, decay: optax.lion(rate, weight_decay=decay, mask=kernels),
}


def rate_schedule(
    peak: float, steps: int, *, warmup_steps: int | None = None, start: int = 0
) -> optax.Schedule:
    """Linear warm-up and cosine decay to zero.

    Args:
        peak: learning rate after the warm-up.
        steps: until it is zero.
        warmup_steps: a tenth of the steps, at most 500, if None.
        start: the step that counts as the first.

    Example:
        >>> float(rate_schedule(0.1, 100, start=10)(0)), float(rate_schedule(0.1, 100)(10))
        (0.1..., 0.1...)
    """
    ramp = min(steps // 10, 500) if warmup_steps is None else min(warmup_steps, steps - 1)
    schedule = optax.warmup_cosine_decay_schedule(0.0, peak, ramp, max(steps, ramp + 1))
    return lambda step: schedule(step + start)


def make_optimizer(
    name: str, rate: optax.ScalarOrSchedule, *, weight_decay: float = 1e-4, clip_norm: float = 0.0
) -> optax.GradientTransformation:
    """An optimizer by name.

    Args:
        name: one of `OPTIMIZERS`.
        rate: the learning rate.
        weight_decay: of kernels; an L2 penalty, or decoupled where the optimizer is known for it
            (adamw, lamb, lion).
        clip_norm: the largest global norm of a gradient; 0 for any.
    """
    optimizer = OPTIMIZERS[name](rate, weight_decay)
    return optax.chain(optax.clip_by_global_norm(clip_norm), optimizer) if clip_norm else optimizer
