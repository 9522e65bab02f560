"""Figures of whole evaluation sets, accumulated batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from morph.errors import DataError
from morph.training.data import Batch
from morph.training.losses import (
    AnyArray,
    cosine_similarity,
    cross_entropy_of_each,
)
from regularizers.checks import FLAG, FUNCTION, check, checked

# (outputs, batch) -> a value for each example, [n, ...]; their mean over the batch, a scalar; or a
# pair of values and weights of one shape.
Values: TypeAlias = Callable[[Any, Batch], Any]


def added(one: Any, other: Any) -> Any:
    """The sums of two trees."""
    return jax.tree.map(np.add, one, other)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure of a whole set, of which only one batch is seen at a time.

    Attributes:
        measure: `(outputs, batch) -> state`, which is compiled: a tree of arrays, of one shape for
            all batches.
        compute: `state -> number`, of the state of all batches.
        merge: `(state, state) -> state`, of NumPy arrays in 64 bits; adds them if not given.
        lower: the lower, the better; by default the higher.

    Example:
        >>> rms = Metric(
        ...     measure=lambda outputs, batch: (jnp.square(outputs - batch.y).sum(), batch.y.size),
        ...     compute=lambda state: np.sqrt(state[0] / state[1]),
        ...     lower=True,
        ... )
    """

    measure: Callable[[Any, Batch], Any]
    compute: Callable[[Any], Any]
    merge: Callable[[Any, Any], Any] = added
    lower: bool = False

    def __post_init__(self) -> None:
        """Refuses what cannot be called."""
        rules = dict.fromkeys(("measure", "compute", "merge"), FUNCTION)
        check("Metric", vars(self), {**rules, "lower": FLAG})


@checked(values=FUNCTION, lower=FLAG)
def mean_of(values: Values, *, lower: bool = False) -> Metric:
    """The mean of a value over all examples.

    Args:
        values: `(outputs, batch) ->` a value for each example, [n, ...]; or their mean over the
            batch, a scalar; or `(values, weights)`, whose weighted mean is taken over all batches.
        lower: the lower, the better.

    Example:
        >>> def right(logits, batch):  # of tokens that are no padding
        ...     return logits.argmax(-1) == batch.y, batch.x["mask"]
        >>> mean_of(right).lower
        False
    """

    def measure(outputs: Any, batch: Batch) -> tuple[Any, Any]:
        found = values(outputs, batch)
        if isinstance(found, tuple):
            value, weight = map(jnp.asarray, found)
            if value.shape != weight.shape:
                raise DataError(
                    f"a metric's values have shape {value.shape}, their weights {weight.shape}; "
                    "they must be the same"
                )
            return (value * weight).sum(), weight.sum()
        value = jnp.asarray(found)
        if value.ndim == 0:
            return value * batch.examples, batch.examples
        if len(value) != batch.examples:
            raise DataError(
                f"a metric gave shape {value.shape} for a batch of {batch.examples} examples; it "
                "must give a scalar, a value for each example, or be a morph.Metric"
            )
        return value.sum(), value.size

    def compute(state: tuple[Any, Any]) -> Any:
        total, count = state
        if not count:
            raise DataError("a metric found nothing to count: all of its weights are zero")
        return total / count

    return Metric(measure=measure, compute=compute, lower=lower)


def of_labels(function: Callable[[Any, Any], Any], *, lower: bool = False) -> Metric:
    """The mean of a function of outputs and labels that gives one value each."""
    return mean_of(lambda outputs, batch: function(outputs, batch.y), lower=lower)


def hits(logits: Float[AnyArray, "*n k"], y: Int[AnyArray, "*n"]) -> Any:
    """Whether the label's logit is the largest, bool [*n]."""
    return logits.argmax(-1) == y


def top5_hits(logits: Float[AnyArray, "*n k"], y: Int[AnyArray, "*n"]) -> Any:
    """Whether the label's logit is among the five largest, bool [*n]."""
    better = (logits > jnp.take_along_axis(jnp.asarray(logits), y[..., None], -1)).sum(-1)
    return better < 5


def _labelled_hits(logits: Any, batch: Batch) -> tuple[Any, Any]:
    return hits(logits, batch.y), batch.y >= 0


def _overlaps(logits: Float[Array, "*n k"], batch: Batch) -> tuple[Any, Any]:
    """Pixels of each class that are told right, and that are of it or told to be, int [k] each."""
    classes = jnp.arange(logits.shape[-1])
    counted = batch.y >= 0
    told = jnp.expand_dims(logits.argmax(-1), -1) == jnp.expand_dims(classes, range(batch.y.ndim))
    true = jnp.expand_dims(batch.y, -1) == jnp.expand_dims(classes, range(batch.y.ndim))
    told = told & jnp.expand_dims(counted, -1)
    axes = tuple(range(batch.y.ndim))
    return (told & true).sum(axes), (told | true).sum(axes)


def _mean_overlap(state: tuple[np.ndarray, np.ndarray]) -> Any:
    both, either = state
    return (both / np.maximum(either, 1))[either > 0].mean()


def _moments(outputs: Any, batch: Batch) -> dict[str, Any]:
    """Squared errors, and count, mean and squared deviations of the labels."""
    y = batch.y
    mean = y.mean(0)
    return {
        "error": jnp.square(outputs.reshape(y.shape) - y).sum(),
        "count": len(y),
        "mean": mean,
        "deviation": jnp.square(y - jnp.expand_dims(mean, 0)).sum(),
    }


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Moments of two sets together (Chan, Golub and LeVeque 1979)."""
    count = one["count"] + other["count"]
    apart = other["mean"] - one["mean"]
    between = np.square(apart).sum() * one["count"] * other["count"] / count
    return {
        "error": one["error"] + other["error"],
        "count": count,
        "mean": one["mean"] + apart * other["count"] / count,
        "deviation": one["deviation"] + other["deviation"] + between,
    }


def _explained(state: dict[str, Any]) -> Any:
    return 1.0 - state["error"] / state["deviation"]


# By name. `explained_variance` is R^2: 1 less the squared error over the variance of the labels.
METRICS: Mapping[str, Metric] = {
    "accuracy": of_labels(hits),
    "top5_accuracy": of_labels(top5_hits),
    "log_likelihood": of_labels(lambda logits, y: -cross_entropy_of_each(logits, y)),
    "masked_accuracy": mean_of(_labelled_hits),
    "mean_iou": Metric(measure=_overlaps, compute=_mean_overlap),
    "explained_variance": Metric(measure=_moments, compute=_explained, merge=_merged),
    "mean_squared_error": of_labels(
        lambda outputs, y: jnp.square(outputs.reshape(y.shape) - y), lower=True
    ),
    "mean_absolute_error": of_labels(
        lambda outputs, y: jnp.abs(outputs.reshape(y.shape) - y), lower=True
    ),
    "cosine_similarity": of_labels(cosine_similarity),
}


def metric_of(given: Metric | Values) -> Metric:
    """A metric; a function is one whose mean is taken."""
    return given if isinstance(given, Metric) else mean_of(given)
