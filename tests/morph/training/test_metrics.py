"""Metrics accumulated over batches are those of the whole set, as NumPy says."""

import numpy as np
import pytest

from morph.training.data import Batch
from morph.training.evaluate import Evaluator
from morph.training.metrics import METRICS, Metric, mean_of, metric_of


def measured(outputs, y, *names, **own):
    """Over batches of 4, of which the last is smaller."""
    metrics = {name: METRICS[name] for name in names} | own
    evaluator = Evaluator(Batch(outputs, y), metrics, batch_size=4)
    return evaluator.measure(lambda variables, x: x, None)


def test_of_classes(rng):
    logits = rng.normal(size=(6, 7)).astype(np.float32)
    y = rng.integers(0, 7, 6)
    found = measured(logits, y, "accuracy", "top5_accuracy", "log_likelihood")
    rank = (logits > logits[np.arange(6), y][:, None]).sum(-1)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    assert found == {
        "accuracy": (rank == 0).mean(),
        "top5_accuracy": (rank < 5).mean(),
        "log_likelihood": pytest.approx(log_p[np.arange(6), y].mean(), rel=1e-5),
    }


def test_of_pixels_some_of_which_are_of_no_class(rng):
    logits = rng.normal(size=(6, 3, 2, 4)).astype(np.float32)
    y = rng.integers(-1, 3, (6, 3, 2))  # class 3 is told, and never true
    told, counted = logits.argmax(-1), y >= 0
    overlaps = []
    for k in range(4):
        one, other = (told == k) & counted, y == k
        overlaps.append((one & other).sum() / (one | other).sum())
    found = measured(logits, y, "mean_iou", "masked_accuracy")
    assert found["mean_iou"] == pytest.approx(np.mean(overlaps))
    assert found["masked_accuracy"] == (told == y)[counted].mean()


def test_of_numbers_far_from_zero(rng):
    y = (1000.0 + rng.normal(size=(11, 2))).astype(np.float32)
    outputs = (y + 0.5 * rng.normal(size=y.shape)).astype(np.float32)
    error, wide = outputs - y, y.astype(np.float64)
    found = measured(
        outputs,
        y,
        "mean_squared_error",
        "mean_absolute_error",
        "explained_variance",
        "cosine_similarity",
    )
    assert found["mean_squared_error"] == pytest.approx((error**2).mean(), rel=1e-5)
    assert found["mean_absolute_error"] == pytest.approx(np.abs(error).mean(), rel=1e-5)
    r2 = 1 - (error**2).mean() / np.square(wide - wide.mean(0)).mean()
    assert found["explained_variance"] == pytest.approx(r2, rel=1e-3)
    assert found["cosine_similarity"] == pytest.approx(1.0, abs=1e-5)
    assert METRICS["mean_squared_error"].lower
    assert not METRICS["explained_variance"].lower


def test_of_functions_values_their_means_and_weights(rng):
    x, y = rng.normal(size=(7, 3)).astype(np.float32), rng.integers(0, 2, (7, 3))
    found = measured(
        x,
        y,
        values=metric_of(lambda outputs, batch: outputs[:, 0]),
        mean=metric_of(lambda outputs, batch: outputs.mean()),
        weighted=mean_of(lambda outputs, batch: (outputs, batch.y)),
        largest=Metric(
            measure=lambda outputs, batch: outputs.max(), merge=np.maximum, compute=float
        ),
    )
    assert found["values"] == pytest.approx(x[:, 0].mean(), rel=1e-5)
    assert found["mean"] == pytest.approx(x.mean(), rel=1e-5)
    assert found["weighted"] == pytest.approx(x[y == 1].mean(), rel=1e-5)
    assert found["largest"] == x.max()
