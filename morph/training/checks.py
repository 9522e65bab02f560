"""Whether data can be trained on, and whether a task fits them and the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from morph.errors import DataError
from morph.network import Network
from morph.training.data import Batch, Pipeline, batches_per_epoch, first_of
from morph.training.metrics import Metric
from regularizers.errors import MorphError
from regularizers.messages import cause

PARTS = ("inputs", "labels")


def check_data(
    train: Batch | Pipeline, test: Batch | Iterable[Batch], batch_size: int = 1
) -> tuple[Batch, Batch]:
    """Raises unless there is data to train and to test on, of one kind and without NaN.

    Args:
        train: a whole set, or a pipeline, of which the first batch is looked at.
        test: a whole set, or what gives its batches, of which the first is looked at.
        batch_size: that the whole set is cut into.

    Returns:
        What was looked at of each.

    Raises:
        DataError: naming the set, what is wrong, and where.
    """
    if not isinstance(train, Batch | Pipeline):
        raise DataError(
            "the training set must be a morph.Batch(x, y), or a pipeline with batches(start); "
            f"found {type(train).__name__}"
        )
    if isinstance(test, tuple) and not isinstance(test, Batch):
        raise DataError("the test set must be a morph.Batch(x, y), found a tuple")
    first = {"training": first_of(train, "training pipeline"), "test": first_of(test, "test set")}
    for name, batch in first.items():
        _check_batch(name, batch)
    if isinstance(train, Batch):
        batches_per_epoch(train.examples, batch_size)
    for what, here, there in zip(PARTS, first["training"], first["test"], strict=True):
        _check_alike(what, here, there)
    return first["training"], first["test"]


def _check_batch(name: str, batch: Batch) -> None:
    inputs, labels = (jax.tree.leaves_with_path(part) for part in batch)
    if not inputs:
        raise DataError(f"the {name} set has no inputs: x is {batch.x!r}, which holds no array")
    for what, leaves in zip(PARTS, (inputs, labels), strict=True):
        for path, leaf in leaves:
            _check_kind(name, _named(what, path), leaf)
    for path, leaf in inputs:
        if not np.ndim(leaf) or not len(leaf):
            raise DataError(
                f"the {name} set is empty: its {_named('inputs', path)} have shape {np.shape(leaf)}"
            )
    count = batch.examples
    for what, leaves in zip(PARTS, (inputs, labels), strict=True):
        for path, leaf in leaves:
            if not np.ndim(leaf) or len(leaf) != count:
                raise DataError(
                    f"the {name} set has {count} inputs, but {_named(what, path)} of shape "
                    f"{np.shape(leaf)}; every input needs one"
                )
            _check_finite(name, _named(what, path), np.asarray(leaf))


def _check_alike(what: str, here: Any, there: Any) -> None:
    """Raises unless the training and the test set have one structure and one shape."""
    trees: list[Any] = [jax.tree.structure(part) for part in (here, there)]
    if trees[0] != trees[1]:
        raise DataError(
            f"{what} of the training set are {_described(here)}, of the test set "
            f"{_described(there)}; both must have the same structure"
        )
    leaves = (jax.tree.leaves_with_path(part) for part in (here, there))
    for (path, one), (_, other) in zip(*leaves, strict=True):
        shapes = np.shape(one)[1:], np.shape(other)[1:]
        if shapes[0] != shapes[1]:
            raise DataError(
                f"{_named(what, path)} of the training set have shape {shapes[0]}, of the test "
                f"set {shapes[1]}; both must be the same"
            )


def _named(what: str, path: Any) -> str:
    """`inputs`, or `inputs['mask']` where there are several."""
    return what + jax.tree_util.keystr(path)


def _described(tree: Any) -> str:
    """The shapes and dtypes in a tree, for a message."""
    told = jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree)
    return "none" if told is None else str(told).replace("'", "")


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
            f"labels of the {name} set go from {low} to {high}, but the network has "
            f"{outputs[-1]} classes: they must be 0 to {outputs[-1] - 1}"
        )


def outputs_of(network: Network, batch: Batch) -> tuple[Any, Any]:
    """What a network gives out for a batch, abstract: in evaluation and in training mode.

    Raises:
        DataError: if it cannot be called with these inputs.
    """
    x, key = _structs(batch.x), jax.random.key(0)
    try:
        variables = jax.eval_shape(network.init, key, x)
        predicted = jax.eval_shape(network.predict, variables, x)
        return predicted, jax.eval_shape(network.forward, variables, x, key)[0]
    except MorphError:
        raise
    except Exception as error:  # the user's model may raise anything while it is traced
        raise DataError(
            f"the network cannot be called with inputs {_described(x)}: {cause(error)}; a tuple "
            "of inputs goes to its positional arguments, a dict to its keyword arguments"
        ) from error


def check_loss(name: str, loss: Callable[[Any, Batch], Any], outputs: Any, batch: Batch) -> None:
    """Raises unless a loss can be taken of a network's outputs, and is a scalar.

    Args:
        name: of the loss.
        loss: `(outputs, batch) -> scalar`, or `{name: scalar}`.
        outputs: abstract, in training mode.
        batch: of the training set.

    Raises:
        DataError: with what it gives, or why it gives nothing.
    """
    found = _traced(f"the loss {name}", loss, outputs, batch)
    if isinstance(found, Mapping) and not found:
        raise DataError(f"the loss {name} has no terms: it returned an empty dict")
    for term, value in found.items() if isinstance(found, Mapping) else [("", found)]:
        shape = getattr(value, "shape", None)
        if shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
            raise DataError(
                f"the loss {name}{f', term {term!r},' if term else ''} must be a scalar, a "
                "floating-point number of shape (), or a dict of such terms; it is "
                f"{_described(value)}. Take the mean over the batch."
            )


def check_metrics(metrics: Mapping[str, Metric], outputs: Any, batch: Batch) -> None:
    """Raises unless metrics can be measured on a batch of the test set.

    Raises:
        DataError: naming the metric, and why.
    """
    for name, metric in metrics.items():
        _traced(f"the metric {name!r}", metric.measure, outputs, batch)


def _traced(what: str, function: Callable[[Any, Batch], Any], outputs: Any, batch: Batch) -> Any:
    """What a function of outputs and a batch gives, abstract."""
    try:
        return jax.eval_shape(function, outputs, _structs(batch))
    except MorphError as error:
        raise DataError(f"{what}: {error}") from error
    except Exception as error:  # a user's function may raise anything while it is traced
        hint = "" if batch.y is not None else "; the data have no labels: y is None"
        raise DataError(
            f"{what} cannot be computed of outputs {_described(outputs)} and labels "
            f"{_described(batch.y)}: {cause(error)}{hint}"
        ) from error


def _structs(tree: Any) -> Any:
    """A tree of arrays, abstract."""

    def struct(leaf: Any) -> jax.ShapeDtypeStruct:
        dtype = jax.dtypes.canonicalize_dtype(np.asarray(leaf).dtype)
        return jax.ShapeDtypeStruct(np.shape(leaf), dtype)

    return jax.tree.map(struct, tree)
