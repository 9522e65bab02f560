"""From timed programs to the prices of their kernels: robust regression without negative prices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from regularizers.costs.calibrated import amounts
from regularizers.costs.form import EXACT
from regularizers.costs.work import Work
from regularizers.errors import InputError

FOLDS = 5  # every 5th program is held out, five times
OUTLIER = 0.1  # relative errors beyond it count linearly (Huber 1964)
REWEIGHTINGS, CONVERGED = 20, 1e-3
RIDGE = 1e-12
CACHE_BYTES = (2.0**18, 2.0**20, 2.0**22, 2.0**24, 2.0**26)  # tried in turn


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Prices and how good they are.

    Attributes:
        seconds_per_unit: {"kind: unit": seconds}, of all amounts that any program has.
        cache_bytes: the best of `CACHE_BYTES`.
        held_out: relative error [programs], each predicted without it.
    """

    seconds_per_unit: dict[str, float]
    cache_bytes: float
    held_out: np.ndarray


def fit(works: Sequence[Work], seconds: np.ndarray) -> Fit:
    """The prices under which the kernels of every program add up to its time.

    Args:
        works: what the programs do.
        seconds: how long each takes [programs].

    Raises:
        ValueError: if there are too few programs, or a time is not above zero.
    """
    seconds = np.asarray(seconds, np.float64)
    if len(works) != len(seconds) or len(works) < 2:
        raise InputError(
            f"a fit needs one time per program and two programs at least; found {len(works)} "
            f"programs and {len(seconds)} times"
        )
    bad = seconds[~(np.isfinite(seconds) & (seconds > 0.0))]
    if bad.size:
        raise InputError(f"times must be finite and above zero, found {bad[0]} s")
    tried = [_design(works, cache_bytes) for cache_bytes in CACHE_BYTES]
    prices = [robust(matrix, seconds) for _, matrix in tried]
    losses = [
        _huber(matrix @ price / seconds - 1.0)
        for (_, matrix), price in zip(tried, prices, strict=True)
    ]
    best = int(np.argmin(losses))
    names, matrix = tried[best]
    held_out = np.zeros(len(seconds))
    folds = min(FOLDS, len(seconds))
    for fold in range(folds):
        out = np.arange(len(seconds)) % folds == fold
        held_out[out] = matrix[out] @ robust(matrix[~out], seconds[~out]) / seconds[out] - 1.0
    return Fit(
        seconds_per_unit=dict(zip(names, map(float, prices[best]), strict=True)),
        cache_bytes=CACHE_BYTES[best],
        held_out=held_out,
    )


def _design(works: Sequence[Work], cache_bytes: float) -> tuple[list[str], np.ndarray]:
    """Names of amounts, and how much of each a call of every program has [programs, amounts]."""
    tables = [amounts(work, EXACT, cache_bytes) for work in works]
    pairs = list(zip(tables, works, strict=True))
    totals = {
        name: np.asarray([float((t[name] * w.facts.count).sum()) for t, w in pairs])
        for name in tables[0]
    }
    totals = {name: column for name, column in totals.items() if column.any()}
    return list(totals), np.stack(list(totals.values()), axis=1)


def robust(matrix: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Non-negative prices [amounts] that make the relative errors small, most of them.

    Iteratively reweighted least squares with Huber's weights on `matrix @ prices / seconds - 1`.
    """
    relative = matrix / seconds[:, None]
    weights = np.ones(len(seconds))
    for _ in range(REWEIGHTINGS):
        prices = nonnegative(relative * weights[:, None], weights)
        errors = np.abs(relative @ prices - 1.0)
        before, weights = weights, np.sqrt(np.minimum(1.0, OUTLIER / np.maximum(errors, 1e-12)))
        if np.abs(weights - before).max() < CONVERGED:
            break
    return prices


def _huber(errors: np.ndarray) -> float:
    size = np.abs(errors)
    return float(np.where(size < OUTLIER, size**2, OUTLIER * (2.0 * size - OUTLIER)).sum())


def nonnegative(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The x >= 0 that minimises |matrix x - target|.

    Args:
        matrix: [rows, columns].
        target: [rows].
    """
    scale = np.linalg.norm(matrix, axis=0)
    scale[scale == 0.0] = 1.0
    ridge = np.sqrt(RIDGE) * np.eye(matrix.shape[1])  # a trace of it tells equal columns apart
    x, _ = scipy.optimize.nnls(np.vstack([matrix / scale, ridge]), np.pad(target, (0, len(ridge))))
    return x / scale
