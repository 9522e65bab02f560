"""A network over a whole data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from morph.network import Variables
from morph.training.data import Batch
from morph.training.losses import (
    Metric,
    accuracy,
)


@dataclass(frozen=True)
class Evaluator:
    """Runs a network over a whole data set, in batches of one compiled size."""

    data: Batch
    batch_size: int = 500

    def logits(self, predict: Callable[[Variables, Any], Any], variables: Variables) -> np.ndarray:
        """The logits [examples, classes]; `predict` is best jitted by who calls this often."""
        count = len(self.data.x)
        size = min(self.batch_size, count)
        parts = []
        for start in range(0, count, size):
            index = np.minimum(np.arange(start, start + size), count - 1)  # pads the last batch
            parts.append(np.asarray(predict(variables, self.data.x[index]))[: count - start])
        return np.concatenate(parts)

    def accuracy(self, logits: Float[np.ndarray, "n k"]) -> float:
        """The share of examples whose largest logit is the label's."""
        return self.metrics(logits, {"accuracy": accuracy})["accuracy"]

    def metrics(
        self, logits: Float[np.ndarray, "n k"], metrics: Mapping[str, Metric]
    ) -> dict[str, float]:
        """Every metric over the whole set."""
        y = np.asarray(self.data.y)
        return {name: float(metric(logits, y)) for name, metric in metrics.items()}
