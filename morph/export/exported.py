"""What an export is: a file with the network and its weights in it, and how well it agrees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Float, Int

from morph.errors import ExportError
from regularizers.checks import ARRAY, NONE, all_of, checked, whole

# Inputs [N, ...] of any number N -> outputs [N, ...], e.g. logits [N, K], as numpy arrays.
Runner: TypeAlias = Callable[[Any], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file that was written.

    Attributes:
        target: `stablehlo`, `onnx` or `tflite`.
        path: where it is.
        size_bytes: of the file.
        batch: how many examples it takes at once; None for any number.
        note: what else there is to know, e.g. why the batch is fixed; "" for nothing.
    """

    target: str
    path: Path
    size_bytes: int
    batch: int | None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How well an exported network agrees with JAX on the same examples.

    Attributes:
        examples: how many were asked.
        logit_difference: the largest |difference|, by the largest |output| of JAX.
        same_class: the share of the examples that both put into the same class; None where outputs
            are no logits.
        accuracy: of the export: by k, the share whose label is among its k largest logits; empty
            where there are none.
        reference_accuracy: of JAX.
    """

    examples: int
    logit_difference: float
    same_class: float | None
    accuracy: dict[int, float]
    reference_accuracy: dict[int, float]

    @property
    def points(self) -> float:
        """What the export loses, in points (hundredths); the most over all k."""
        return 100.0 * max(
            (self.reference_accuracy[k] - accuracy for k, accuracy in self.accuracy.items()),
            default=0.0,
        )


@checked(
    reference=ARRAY,
    logits=ARRAY,
    labels=ARRAY | NONE,
    top=all_of(whole(least=1), "whole numbers of at least 1"),
)
def compare(
    reference: Float[np.ndarray, "n ..."],
    logits: Float[np.ndarray, "n ..."],
    labels: Int[np.ndarray, "n ..."] | None,
    *,
    top: tuple[int, ...] = (1,),
) -> Agreement:
    """How well logits, or other outputs, agree with those of JAX.

    Args:
        reference: of JAX, [N, ..., K].
        logits: of the export, [N, ..., K].
        labels: [N, ...], in [0, K); negative ones do not count. None of outputs that are no logits.
        top: for which k accuracies are counted.

    Raises:
        ExportError: if the shapes do not fit, or there is nothing to compare.

    Example:
        >>> compare(np.eye(2), np.eye(2), np.asarray([0, 1])).accuracy
        {1: 1.0}
    """
    reference, logits = map(np.asarray, (reference, logits))
    if reference.shape != logits.shape or reference.ndim < 2 or not reference.size:
        raise ExportError(
            "compare takes two arrays of logits, or other outputs, [N, ..., K]; found "
            f"{reference.shape} of JAX and {logits.shape} of the export."
        )
    examples, largest = len(reference), float(np.max(np.abs(reference)))
    difference = float(np.max(np.abs(reference - logits))) / max(largest, 1e-30)
    if labels is None:
        return Agreement(
            examples=examples,
            logit_difference=difference,
            same_class=None,
            accuracy={},
            reference_accuracy={},
        )
    labels = np.asarray(labels)
    if labels.shape != reference.shape[:-1]:
        raise ExportError(
            f"{len(reference)} rows of logits need as many labels, found {labels.shape}"
        )
    classes = reference.shape[-1]
    if labels.max() >= classes or max(top) > classes:
        raise ExportError(
            f"compare: labels are 0 to {classes - 1} and top at most {classes}, as many as there "
            f"are classes; found labels {labels.min()} to {labels.max()}, top {top}"
        )
    counted = labels >= 0
    reference, logits, labels = reference[counted], logits[counted], labels[counted]
    return Agreement(
        examples=examples,
        logit_difference=difference,
        same_class=float(np.mean(reference.argmax(1) == logits.argmax(1))),
        accuracy={k: _top(logits, labels, k) for k in top},
        reference_accuracy={k: _top(reference, labels, k) for k in top},
    )


def _top(logits: np.ndarray, labels: np.ndarray, k: int) -> float:
    """The share of labels with fewer than k logits above their own."""
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    return float(np.mean(np.sum(logits > own, axis=1) < k))


def batched(run: Callable[[np.ndarray], Any], batch: int | None) -> Runner:
    """A function that takes exactly `batch` examples, for any number of them."""

    def runner(inputs: Any) -> np.ndarray:
        inputs = np.asarray(inputs)
        if not len(inputs):
            raise ExportError("there is nothing to run: 0 examples")
        if batch is None:
            return np.asarray(run(inputs))
        pad = -len(inputs) % batch
        padded = np.concatenate([inputs, np.repeat(inputs[-1:], pad, axis=0)])
        parts = [np.asarray(run(part)) for part in np.split(padded, len(padded) // batch)]
        return np.concatenate(parts)[: len(inputs)]

    return runner


def example_struct(example: Any) -> jax.ShapeDtypeStruct:
    """The shape of an example input, [N, ...].

    Raises:
        ExportError: if it is no array, or has no batch axis.
    """
    shape, dtype = getattr(example, "shape", None), getattr(example, "dtype", None)
    if shape is None or dtype is None or not shape or not shape[0]:
        raise ExportError(
            "an export needs an example input [N, ...], an array or a jax.ShapeDtypeStruct, with "
            f"a batch of at least 1; found {example if shape is None else tuple(shape)}"
        )
    return jax.ShapeDtypeStruct(tuple(shape), jax.dtypes.canonicalize_dtype(dtype))


def written(target: str, path: Any, data: bytes, batch: int | None, note: str = "") -> Exported:
    """Writes a file, whole or not at all, and says what it is."""
    path = Path(path)
    draft = path.with_name(path.name + ".part")
    draft.write_bytes(data)
    draft.replace(path)
    return Exported(target=target, path=path, size_bytes=len(data), batch=batch, note=note)
