"""Training a network: data, tasks, losses, metrics, optimizers, the step, and the loop."""

from typing import TYPE_CHECKING

from regularizers.lazy import lazy

if TYPE_CHECKING:
    from morph.training.data import Batch, Pipeline
    from morph.training.grain_batches import GrainBatches
    from morph.training.losses import (
        cosine_distance,
        cosine_similarity,
        cross_entropy,
        masked_cross_entropy,
        mean_absolute_error,
        mean_squared_error,
        responses,
        sigmoid_cross_entropy,
        soft_labels,
    )
    from morph.training.metrics import Metric, mean_of
    from morph.training.task import Task, classes_of
else:
    __getattr__, __dir__ = lazy(__name__)

__all__ = [
    "Batch",
    "GrainBatches",
    "Metric",
    "Pipeline",
    "Task",
    "classes_of",
    "cosine_distance",
    "cosine_similarity",
    "cross_entropy",
    "masked_cross_entropy",
    "mean_absolute_error",
    "mean_of",
    "mean_squared_error",
    "responses",
    "sigmoid_cross_entropy",
    "soft_labels",
]
