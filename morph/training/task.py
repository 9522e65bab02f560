"""What a network is trained for and judged by, whatever goes in and comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from morph.training.augment import Augmentation
from morph.training.data import Batch
from morph.training.losses import LabelLoss, cross_entropy
from morph.training.metrics import Metric, Values
from regularizers.checks import FUNCTION, NONE, a, by_name, check

# (outputs, batch) -> a scalar, or {name: scalar} whose sum is minimised.
Loss: TypeAlias = Callable[[Any, Batch], Any]


METRICS = by_name(a(Metric, "") | FUNCTION, "metrics by name, each a morph.Metric or a function")


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a network is for: what of its outputs is minimised, and what is measured.

    What is not given is what the configuration names. Outputs are what the network gives out: an
    array, or any tree of arrays.

    Attributes:
        loss: `(outputs, batch) -> scalar`, of a batch's mean; or several terms, `{name: scalar}`,
            whose sum is minimised and each of which is recorded.
        metrics: of an evaluation set, by name: a `Metric`; or `(outputs, batch) ->` a value for
            each example, or their mean, or `(values, weights)`. `config.patience` goes by the
            first.
        augment: `(key, batch) -> batch` on a training batch, compiled into the step.
        distill: `(outputs, taught) -> scalar`: how far outputs are from those of a teacher.
        decide: `outputs ->` a tree of what they say, e.g. the classes; a shrunk network is to say
            the same as the dense one.

    Example:
        >>> def next_token(logits, batch):
        ...     ids = batch.x
        ...     own = -jax.nn.log_softmax(logits[:, :-1])
        ...     return jnp.take_along_axis(own, ids[:, 1:, None], -1).mean()
        >>> task = Task(loss=next_token, metrics={"nats": Metric(
        ...     measure=lambda logits, batch: next_token(logits, batch) * batch.examples,
        ...     compute=float, lower=True)})
    """

    loss: Loss | None = None
    metrics: Mapping[str, Metric | Values] | None = None
    augment: Callable[[Any, Batch], Batch] | None = None
    distill: LabelLoss | None = None
    decide: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        """Refuses what cannot be called."""
        rules = dict.fromkeys(vars(self), FUNCTION | NONE)
        check("Task", vars(self), {**rules, "metrics": METRICS | NONE})


TASK = a(Task, "a morph.Task")


def labels_loss(loss: LabelLoss) -> Loss:
    """A loss of outputs and labels, as one of outputs and a batch."""
    return lambda outputs, batch: loss(outputs, batch.y)


CROSS_ENTROPY = labels_loss(cross_entropy)


def inputs_augmented(augment: Augmentation) -> Callable[[Any, Batch], Batch]:
    """A change to inputs alone, as one to batches."""
    return lambda key, batch: batch._replace(x=augment(key, batch.x))


def classes_of(logits: Any) -> Any:
    """The class of the largest logit."""
    return jnp.argmax(logits, -1)


def total(terms: Any) -> Any:
    """The sum of a loss's terms; a scalar is its own."""
    first, *others = jax.tree.leaves(terms)
    return sum(others, start=first)
