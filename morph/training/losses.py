"""Losses and metrics by name: functions of logits and labels, and what a teacher adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Num

AnyArray = Array | np.ndarray
Loss = Callable[[Any, Any], Float[Array, ""]]
Metric = Callable[[Any, Any], Any]


def cross_entropy(
    logits: Float[AnyArray, "*n k"], y: Int[AnyArray, "*n"], smoothing: float = 0.0
) -> Float[Array, ""]:
    """Mean softmax cross-entropy, in nats.

    Args:
        logits: of the classes.
        y: the right class.
        smoothing: the share of the label that is spread evenly over all classes (Szegedy et al.
            2016).
    """
    own = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    if smoothing:
        even = jax.nn.logsumexp(logits, -1) - logits.mean(-1)
        own = (1.0 - smoothing) * own + smoothing * even
    return own.mean()


def mean_squared_error(
    predictions: Float[AnyArray, "..."], y: Float[AnyArray, "..."]
) -> Float[Array, ""]:
    """Mean squared error; y [n] may be predicted by [n, 1]."""
    return jnp.square(predictions.reshape(y.shape) - y).mean()


def mean_absolute_error(
    predictions: Float[AnyArray, "..."], y: Float[AnyArray, "..."]
) -> Float[Array, ""]:
    """Mean absolute error; y [n] may be predicted by [n, 1]."""
    return jnp.abs(predictions.reshape(y.shape) - y).mean()


def sigmoid_cross_entropy(
    logits: Float[AnyArray, "..."], y: Num[AnyArray, "..."]
) -> Float[Array, ""]:
    """Mean logistic loss of independent labels 0 and 1, in nats."""
    return optax.sigmoid_binary_cross_entropy(logits.reshape(y.shape), y).mean()


LOSSES: Mapping[str, Loss] = {
    "cross_entropy": cross_entropy,
    "sigmoid_cross_entropy": sigmoid_cross_entropy,
    "mean_squared_error": mean_squared_error,
    "mean_absolute_error": mean_absolute_error,
}


def loss_named(name: str, label_smoothing: float = 0.0) -> Loss:
    """The loss of that name; only `cross_entropy` has labels to smooth."""
    if name == "cross_entropy" and label_smoothing:
        return partial(cross_entropy, smoothing=label_smoothing)
    return LOSSES[name]


def accuracy(logits: Float[AnyArray, "*n k"], y: Int[AnyArray, "*n"]) -> Any:
    """The share of labels whose logit is the largest."""
    return (logits.argmax(-1) == y).mean()


def top5_accuracy(logits: Float[AnyArray, "*n k"], y: Int[AnyArray, "*n"]) -> Any:
    """The share of labels whose logit is among the five largest."""
    better = (logits > jnp.take_along_axis(jnp.asarray(logits), y[..., None], -1)).sum(-1)
    return (better < 5).mean()


def log_likelihood(logits: Float[AnyArray, "*n k"], y: Int[AnyArray, "*n"]) -> Any:
    """Mean log-probability of the label, in nats."""
    return -cross_entropy(logits, y)


def explained_variance(predictions: Float[AnyArray, "..."], y: Float[AnyArray, "..."]) -> Any:
    """R^2: 1 less the squared error over the variance of y."""
    return 1.0 - mean_squared_error(predictions, y) / jnp.square(y - y.mean(0)).mean()


# Of whole test sets; the larger, the better.
METRICS: Mapping[str, Metric] = {
    "accuracy": accuracy,
    "top5_accuracy": top5_accuracy,
    "log_likelihood": log_likelihood,
    "explained_variance": explained_variance,
}
OF_CLASSES = frozenset({"accuracy", "top5_accuracy", "log_likelihood"})


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A trained network whose logits a student learns from, too (Hinton et al. 2015).

    Attributes:
        predict: `(variables, x) -> logits`, in evaluation mode.
        weight: of the teacher's loss, 0 to 1; the labels' has the rest.
        temperature: that both logits are divided by; the higher, the more the classes count that
            the teacher thinks unlikely.
    """

    predict: Callable[[Any, Any], Any]
    weight: float
    temperature: float

    def loss(
        self, logits: Float[AnyArray, "*n k"], taught: Float[Array, "*n k"]
    ) -> Float[Array, ""]:
        """Mean Kullback-Leibler divergence of the softened classes, in nats.

        Times the squared temperature, so that its gradient is as large as the labels'.
        """
        t = self.temperature
        target = jax.nn.log_softmax(taught / t, -1)
        own = jax.nn.log_softmax(logits / t, -1)
        return t**2 * (jnp.exp(target) * (target - own)).sum(-1).mean()
