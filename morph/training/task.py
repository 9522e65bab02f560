"""What a network is trained for and judged by, whatever goes in and comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from morph.errors import ConfigError
from morph.imports import find_attribute, is_path
from morph.settings import names_of
from morph.training.augment import Augmentation
from morph.training.data import Batch
from morph.training.losses import LabelLoss, cross_entropy
from morph.training.metrics import METRICS as NAMED
from morph.training.metrics import Metric, Values
from regularizers.checks import ARRAY, FUNCTION, NONE, a, by_name, check, checked

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


@checked(logits=ARRAY)
def classes_of(logits: Any) -> Any:
    """The class of the largest logit."""
    return jnp.argmax(logits, -1)


def total(terms: Any) -> Any:
    """The sum of a loss's terms; a scalar is its own."""
    first, *others = jax.tree.leaves(terms)
    return sum(others, start=first)


def imported_task(loss: str, metrics: str, task: Task) -> Task:
    """A task, completed by what is named by the path of an attribute of somebody's module.

    Args:
        loss: a name, or the path of a function, or of a task whose every part counts.
        metrics: names and paths, separated by commas. If one is a path, all are taken from here.
        task: what is given goes first.

    Raises:
        ImportedError: if one cannot be imported. ConfigError: if it is nothing of the kind.
    """
    if is_path(loss) and task.loss is None:
        found = find_attribute(loss, "loss")
        if isinstance(found, Task):
            own = {field.name: getattr(found, field.name) for field in fields(Task)}
            given = {field.name: getattr(task, field.name) for field in fields(Task)}
            task = Task(**{name: own[name] if it is None else it for name, it in given.items()})
        elif callable(found):
            task = replace(task, loss=found)
        else:
            raise ConfigError(
                f"--loss={loss} is a {type(found).__name__}; it must be a function (outputs, "
                "batch) -> scalar, or a morph.Task"
            )
    names = names_of(metrics)
    if task.metrics is None and any(map(is_path, names)):
        known: dict[str, Metric | Values] = {}
        for name in names:
            own_name, found = name.rpartition(":")[2], NAMED.get(name)
            known[own_name] = find_attribute(name, "metrics") if found is None else found
            if not isinstance(known[own_name], Metric) and not callable(known[own_name]):
                raise ConfigError(
                    f"--metrics={name} is a {type(known[own_name]).__name__}; it must be a "
                    "function (outputs, batch), or a morph.Metric"
                )
        task = replace(task, metrics=known)
    return task
