"""What a network says on the test set, example by example: for the report."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from morph.network import Network, Variables
from morph.training.data import Batch, as_batch

MOST_CLASSES = 20  # that a table shows
SAMPLES, LENGTH = 3, 32  # sequences, and tokens of each
_ROWS = 500  # of a whole test set, at a time


def tested(network: Network, variables: Variables, test: Batch | Iterable[Batch]) -> dict[str, Any]:
    """Answers on the test set, counted or as they are.

    Args:
        network: at the widths of the variables.
        variables: its own.
        test: the test set: whole, or what gives its batches.

    Returns:
        Of a classifier with few classes `confusion`, [classes, classes]: how many examples of each
        class (rows) were given each class (columns). Of a network that gives logits for every token
        `samples`: the tokens that it was `given` and those that it `predicted`. Else nothing, and
        nothing in a run of several processes, of which one alone cannot run it.
    """
    if jax.process_count() > 1:
        return {}
    predict = jax.jit(network.predict)
    confusion: np.ndarray | None = None
    for batch in _batches(test):
        logits = predict(variables, batch.x)
        if not isinstance(logits, jax.Array):
            return {}
        labels = np.asarray(batch.y) if jax.tree_util.all_leaves([batch.y]) else None
        if logits.ndim == 3:
            return _samples(np.asarray(logits.argmax(-1)), batch.x)
        classes = logits.shape[-1] if logits.ndim == 2 else 0
        if labels is None or labels.ndim != 1 or not 1 < classes <= MOST_CLASSES:
            return {}
        if not np.issubdtype(labels.dtype, np.integer):
            return {}
        confusion = np.zeros((classes, classes), int) if confusion is None else confusion
        known = (labels >= 0) & (labels < classes)
        np.add.at(confusion, (labels[known], np.asarray(logits.argmax(-1))[known]), 1)
    return {} if confusion is None else {"confusion": confusion.tolist()}


def _batches(test: Batch | Iterable[Batch]) -> Iterable[Batch]:
    if not isinstance(test, Batch):
        return map(as_batch, test)
    return (test.rows(slice(i, i + _ROWS)) for i in range(0, test.examples, _ROWS))


def _samples(predicted: np.ndarray, x: Any) -> dict[str, Any]:
    """The first sequences, if inputs are tokens."""
    given = [
        np.asarray(leaf)
        for leaf in jax.tree.leaves(x)
        if np.shape(leaf) == predicted.shape and np.issubdtype(np.asarray(leaf).dtype, np.integer)
    ]
    if not given:
        return {}
    rows = zip(given[0][:SAMPLES, :LENGTH], predicted[:SAMPLES, :LENGTH], strict=True)
    return {"samples": [{"given": a.tolist(), "predicted": b.tolist()} for a, b in rows]}
