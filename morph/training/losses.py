"""Losses by name: functions of outputs and labels; and what is learned from a teacher's outputs."""

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

from regularizers.checks import ARRAY, TREE, checked, number

AnyArray = Array | np.ndarray
LabelLoss = Callable[[Any, Any], Float[Array, ""]]  # (outputs, y)


@checked(logits=ARRAY, y=ARRAY, smoothing=number(least=0.0, below=1.0))
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
    return cross_entropy_of_each(logits, y, smoothing).mean()


def cross_entropy_of_each(
    logits: Float[AnyArray, "*n k"], y: Int[AnyArray, "*n"], smoothing: float = 0.0
) -> Float[Array, "*n"]:
    """Softmax cross-entropy of each label, as `cross_entropy`."""
    own = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    if smoothing:
        even = jax.nn.logsumexp(logits, -1) - logits.mean(-1)
        own = (1.0 - smoothing) * own + smoothing * even
    return own


@checked(logits=ARRAY, y=ARRAY, smoothing=number(least=0.0, below=1.0))
def masked_cross_entropy(
    logits: Float[AnyArray, "*n k"], y: Int[AnyArray, "*n"], smoothing: float = 0.0
) -> Float[Array, ""]:
    """Mean softmax cross-entropy of the labels that are not negative, in nats; 0 of none.

    Args:
        logits: of the classes.
        y: the right class; negative where there is none: padding, tokens that are not masked.
        smoothing: as of `cross_entropy`.
    """
    counted = y >= 0
    own = cross_entropy_of_each(logits, jnp.where(counted, y, 0), smoothing)
    number = jnp.maximum(counted.sum(), 1).astype(own.dtype)
    return jnp.where(counted, own, 0.0).sum() / number


@checked(predictions=ARRAY, y=ARRAY)
def mean_squared_error(
    predictions: Float[AnyArray, "..."], y: Float[AnyArray, "..."]
) -> Float[Array, ""]:
    """Mean squared error; y [n] may be predicted by [n, 1]."""
    return jnp.square(predictions.reshape(y.shape) - y).mean()


@checked(predictions=ARRAY, y=ARRAY)
def mean_absolute_error(
    predictions: Float[AnyArray, "..."], y: Float[AnyArray, "..."]
) -> Float[Array, ""]:
    """Mean absolute error; y [n] may be predicted by [n, 1]."""
    return jnp.abs(predictions.reshape(y.shape) - y).mean()


@checked(logits=ARRAY, y=ARRAY)
def sigmoid_cross_entropy(
    logits: Float[AnyArray, "..."], y: Num[AnyArray, "..."]
) -> Float[Array, ""]:
    """Mean logistic loss of independent labels 0 and 1, in nats."""
    return optax.sigmoid_binary_cross_entropy(logits.reshape(y.shape), y).mean()


@checked(outputs=ARRAY, y=ARRAY)
def cosine_similarity(
    outputs: Float[AnyArray, "*n d"], y: Float[AnyArray, "*n d"]
) -> Float[Array, "*n"]:
    """The cosine of the angle between vectors."""
    return optax.cosine_similarity(outputs, y, epsilon=1e-8)


@checked(outputs=ARRAY, y=ARRAY)
def cosine_distance(
    outputs: Float[AnyArray, "*n d"], y: Float[AnyArray, "*n d"]
) -> Float[Array, ""]:
    """1 less the cosine of the angle between vectors, the mean."""
    return 1.0 - cosine_similarity(outputs, y).mean()


LOSSES: Mapping[str, LabelLoss] = {
    "cross_entropy": cross_entropy,
    "masked_cross_entropy": masked_cross_entropy,
    "sigmoid_cross_entropy": sigmoid_cross_entropy,
    "mean_squared_error": mean_squared_error,
    "mean_absolute_error": mean_absolute_error,
    "cosine_distance": cosine_distance,
}
# Those whose labels can be smoothed.
SMOOTHED: Mapping[str, Callable[..., Float[Array, ""]]] = {
    "cross_entropy": cross_entropy,
    "masked_cross_entropy": masked_cross_entropy,
}


def loss_named(name: str, label_smoothing: float = 0.0) -> LabelLoss:
    """The loss of that name; only some have labels to smooth."""
    if label_smoothing and name in SMOOTHED:
        return partial(SMOOTHED[name], smoothing=label_smoothing)
    return LOSSES[name]


@checked(logits=ARRAY, taught=ARRAY, temperature=number(above=0.0))
def soft_labels(
    logits: Float[AnyArray, "*n k"], taught: Float[AnyArray, "*n k"], temperature: float = 1.0
) -> Float[Array, ""]:
    """Mean Kullback-Leibler divergence of the softened classes, in nats (Hinton et al. 2015).

    Times the squared temperature, so that its gradient is as large as the labels'.

    Args:
        logits: of the student.
        taught: of the teacher.
        temperature: that both are divided by; the higher, the more the classes count that the
            teacher thinks unlikely.
    """
    t = temperature
    target = jax.nn.log_softmax(taught / t, -1)
    own = jax.nn.log_softmax(logits / t, -1)
    return t**2 * (jnp.exp(target) * (target - own)).sum(-1).mean()


@checked(outputs=TREE, taught=TREE)
def responses(outputs: Any, taught: Any) -> Float[Array, ""]:
    """Mean squared difference of two trees of responses, over the teacher's mean square.

    The mean over all floating-point arrays of the tree (Romero et al. 2015, "FitNets").
    """
    pairs = zip(jax.tree.leaves(outputs), jax.tree.leaves(taught), strict=True)
    found = [
        jnp.square(own - its).mean() / (jnp.square(its).mean() + 1e-12)
        for own, its in pairs
        if jnp.issubdtype(its.dtype, jnp.floating)
    ]
    return jnp.stack(found).mean()


# What a student's outputs are to its teacher's, by name: `(outputs, taught) -> scalar`.
TAUGHT: Mapping[str, LabelLoss] = {
    "logits": soft_labels,
    "responses": responses,
    "embeddings": cosine_distance,
}


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A trained network whose outputs a student learns from, too.

    Attributes:
        predict: `(variables, x) -> outputs`, in evaluation mode.
        weight: of the teacher's loss, 0 to 1; the task's has the rest.
        loss: `(outputs, taught) -> scalar`.
    """

    predict: Callable[[Any, Any], Any]
    weight: float
    loss: LabelLoss
