"""Whether data can be trained on."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from morph.errors import DataError
from morph.training.data import Batch, Pipeline, batches_per_epoch


def check_data(train: Batch | Pipeline, test: Batch, batch_size: int = 1) -> None:
    """Raises unless there is data to train and to test on, of one kind and without NaN.

    Args:
        train: a whole set, or a pipeline, of which the first batch is looked at.
        test: a whole set.
        batch_size: that the whole set is cut into.

    Raises:
        DataError: naming the set, what is wrong, and where.
    """
    if not isinstance(train, Batch | Pipeline):
        raise DataError(
            "the training set must be a morph.Batch(x, y), or a pipeline with batches(start); "
            f"found {type(train).__name__}"
        )
    first = next(iter(train.batches(0)), None) if isinstance(train, Pipeline) else train
    if first is None:
        raise DataError("the training pipeline gives no batches")
    sets = {"training": first, "test": test}
    for name, found in sets.items():
        if not isinstance(found, Batch) and (found is test or len(found) != 2):
            raise DataError(
                f"the {name} set must be a morph.Batch(x, y), found {type(found).__name__}"
            )
        x, y = found
        for what, part in {"inputs": x, "labels": y}.items():
            _check_kind(name, what, part)
        if not np.ndim(x) or not len(x):
            raise DataError(f"the {name} set is empty: its inputs have shape {np.shape(x)}")
        if not np.ndim(y) or len(x) != len(y):
            raise DataError(
                f"the {name} set has {len(x)} inputs, but labels of shape {np.shape(y)}; "
                "every input needs one"
            )
        for what, part in {"inputs": x, "labels": y}.items():
            _check_finite(name, what, np.asarray(part))
    if isinstance(train, Batch):
        batches_per_epoch(len(train.x), batch_size)
    for i, what in enumerate(("inputs", "labels")):
        here, there = (np.asarray(data[i]) for data in (first, test))
        if here.shape[1:] != there.shape[1:]:
            raise DataError(
                f"{what} of the training set have shape {here.shape[1:]}, of the test set "
                f"{there.shape[1:]}; both must be the same"
            )


def _check_kind(name: str, what: str, part: Any) -> None:
    dtype = getattr(part, "dtype", None)
    if dtype is None:
        raise DataError(
            f"{what} of the {name} set must be a NumPy or JAX array, found "
            f"{type(part).__name__}; make one by np.asarray"
        )
    if not any(jnp.issubdtype(dtype, kind) for kind in (np.bool_, np.integer, np.floating)):
        raise DataError(
            f"{what} of the {name} set are {dtype}; they must be real numbers, integers or booleans"
        )


def _check_finite(name: str, what: str, values: np.ndarray) -> None:
    if np.issubdtype(values.dtype, np.inexact) and not np.isfinite(values).all():
        bad = np.unique(np.argwhere(~np.isfinite(values))[:, 0])
        raise DataError(
            f"{what} of the {name} set are not finite in {len(bad)} of {len(values)} examples, "
            f"first in number {bad[0]}; clean or drop them"
        )


def check_labels(
    name: str, y: Any, outputs: tuple[int, ...], *, classes: bool, what: str = "the loss"
) -> None:
    """Raises unless labels fit what the network gives out.

    Args:
        name: of the set.
        y: labels [n, ...].
        outputs: the shape of the network's output for one example.
        classes: the last axis of the outputs are classes, and labels their numbers.
        what: takes them.

    Raises:
        DataError: with the labels that do not fit.
    """
    y = np.asarray(y)
    if not classes:
        if np.prod(y.shape[1:]) != np.prod(outputs):
            raise DataError(
                f"labels of the {name} set have shape {y.shape[1:]} for an example, the network "
                f"gives {outputs}; {what} compares them one by one"
            )
        return
    if not np.issubdtype(y.dtype, np.integer) or y.shape[1:] != outputs[:-1]:
        raise DataError(
            f"labels of the {name} set are {y.dtype} of shape {y.shape[1:]} for an example; "
            f"{what} takes integers of shape {outputs[:-1]}, the numbers of {outputs[-1]} classes"
        )
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= outputs[-1]:
        raise DataError(
            f"labels of the {name} set go from {low} to {high}, but the network tells "
            f"{outputs[-1]} classes apart: they must be 0 to {outputs[-1] - 1}"
        )
