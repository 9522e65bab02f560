"""What an export is: a file with the network and its weights in it, and how well it agrees."""

from __future__ import annotations

import contextlib
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
from jax import export as jax_export
from jaxtyping import Float, Int

from morph.errors import ExportError
from regularizers.checks import ARRAY, NONE, all_of, checked, whole
from regularizers.primitives import jaxprs

# Inputs [N, ...] of any number N -> outputs [N, ...], e.g. logits [N, K], as numpy arrays. Several
# are trees, e.g. {"tokens": ..., "mask": ...}.
Runner: TypeAlias = Callable[[Any], Any]

BATCH = "batch"
INDEPENDENT, MIXED, UNKNOWN = "independent", "mixed", "unknown"


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file that was written.

    Attributes:
        target: `stablehlo`, `onnx` or `tflite`.
        path: where it is.
        size_bytes: of the file.
        batch: how many examples it takes at once; None for any number.
        examples: of a fixed batch, what is known of its examples: `independent`, `mixed` or
            `unknown`. Only independent ones can be run in other numbers.
        note: what else there is to know, e.g. why the batch is fixed; "" for nothing.
    """

    target: str
    path: Path
    size_bytes: int
    batch: int | None
    examples: str = UNKNOWN
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
    """The share of labels with fewer than k logits above their own, or as large and before it."""
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    ahead = (logits == own) & (np.arange(logits.shape[1]) < labels[:, None])
    return float(np.mean(np.sum((logits > own) | ahead, axis=1) < k))


def batched(run: Callable[[Any], Any], batch: int | None, examples: str) -> Runner:
    """A function that takes exactly `batch` examples, for any number where that is the same.

    Args:
        run: takes and gives trees of arrays; those [`batch`, ...] have the examples in front.
        batch: how many it takes; None for any number.
        examples: `independent`, `mixed` or `unknown`.
    """

    def runner(inputs: Any) -> Any:
        inputs = jax.tree.map(_as_in_jax, inputs)
        count = next((len(leaf) for leaf in jax.tree.leaves(inputs) if leaf.ndim), None)
        if count == 0:
            raise ExportError("there is nothing to run: 0 examples")
        if batch is None or count is None or count == batch:
            return jax.tree.map(np.asarray, run(inputs))
        if examples != INDEPENDENT:
            why = "mixes them" if examples == MIXED else "may mix them: it does not say"
            raise ExportError(
                f"the file takes {batch} examples at once and {why}, so {count} cannot be run; "
                f"pass {batch}, or export it again with an example of {count}"
            )
        parts = []
        for start in range(0, count, batch):
            rows = np.minimum(np.arange(start, start + batch), count - 1)
            parts.append(run(_rows_of(inputs, rows)))
        return jax.tree.map(
            lambda *leaves: np.concatenate(list(map(np.asarray, leaves)))[:count], *parts
        )

    return runner


def _as_in_jax(leaf: Any) -> np.ndarray:
    """An array of the type that JAX makes of it: float32 of NumPy's float64, unless told."""
    value = np.asarray(leaf)
    return value.astype(jax.dtypes.canonicalize_dtype(value.dtype), copy=False)


def _rows_of(inputs: Any, rows: np.ndarray) -> Any:
    return jax.tree.map(lambda leaf: leaf[rows] if leaf.ndim else leaf, inputs)


def example_struct(example: Any) -> Any:
    """The shapes of example inputs, [N, ...] each, or [].

    Raises:
        ExportError: if they are no arrays, or none has an axis, or one of size 0.
    """
    leaves = jax.tree.leaves(example)
    shapes: list[Any] = [getattr(leaf, "shape", None) for leaf in leaves]
    if not leaves or None in shapes or not any(shapes) or any(0 in shape for shape in shapes):
        found = [
            type(leaf).__name__ if s is None else tuple(s)
            for leaf, s in zip(leaves, shapes, strict=True)
        ]
        raise ExportError(
            "an export needs an example input [N, ...], an array or a jax.ShapeDtypeStruct, or a "
            f"tree of them, with at least 1 example; found {found[0] if len(found) == 1 else found}"
        )
    if any(jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended) for leaf in leaves):
        raise ExportError(
            "an input is a key of random numbers, which no file takes: pass its numbers "
            "(jax.random.key_data) and make a key of them in the function "
            "(jax.random.wrap_key_data), or keep a fixed key in it"
        )
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            tuple(leaf.shape), jax.dtypes.canonicalize_dtype(leaf.dtype)
        ),
        example,
    )


def batch_of(structs: Any) -> int:
    """How many examples there are."""
    return int(next(leaf.shape[0] for leaf in jax.tree.leaves(structs) if leaf.shape))


def has_batch(structs: Any) -> bool:
    """Whether all inputs with axes have as many rows: examples."""
    return len({leaf.shape[0] for leaf in jax.tree.leaves(structs) if leaf.shape}) == 1


def opened(structs: Any, shapes: Any, constraints: Sequence[str] = ()) -> Any:
    """Inputs some of whose sizes may vary.

    Args:
        structs: the inputs' shapes.
        shapes: in the notation of `jax.export.symbolic_args_specs`: `"batch, length"`, or a tree
            of such texts, of numbers and names; `...` stands for the sizes that there are.
        constraints: what holds of the names, e.g. `"length <= 64"`.

    Raises:
        ExportError: if that does not fit the inputs.
    """
    try:
        given = jax_export.symbolic_args_specs(structs, shapes, constraints=constraints)
        why = "" if all(jax.tree.leaves(jax.tree.map(_fits, structs, given))) else "other sizes"
    except (ValueError, TypeError, AttributeError) as error:
        why = str(error)
    if why:
        raise ExportError(
            f"shapes={shapes!r} does not fit the inputs {jax.tree.map(_shape, structs)}: {why}. "
            "It takes a text for each, or one for all, of numbers and names of sizes that may vary"
        )
    return given


def _shape(struct: Any) -> list[int]:
    return list(struct.shape)


def _fits(struct: Any, given: Any) -> bool:
    pairs = zip(struct.shape, given.shape, strict=True)
    return all(n == own if isinstance(own, int) else str(own).isidentifier() for n, own in pairs)


def batch_opened(structs: Any) -> Any:
    """Inputs whose batch, in front of each but those without axes, may vary."""
    return opened(structs, jax.tree.map(lambda x: f"{BATCH}, ..." if x.shape else "", structs))


def open_sizes(structs: Any, given: Any) -> dict[str, int]:
    """The sizes of an example that may vary, by name."""
    pairs = zip(jax.tree.leaves(structs), jax.tree.leaves(given), strict=True)
    return {
        str(name): n
        for one, other in pairs
        for n, name in zip(one.shape, other.shape, strict=True)
        if not isinstance(name, int) and str(name).isidentifier()
    }


_JOINED: dict[str, Callable[[int, int], int]] = {
    "add": operator.add, "floordiv": operator.floordiv, "max": max, "min": min,
    "mod": operator.mod, "mul": operator.mul,
}  # fmt: skip


def sizes_at(given: Any, known: Mapping[str, int]) -> Any:
    """Inputs some of whose sizes have names, at some sizes."""
    return jax.tree.map(
        lambda x: x.update(
            shape=tuple(
                jaxprs.measured(n, known, lambda op, a, b: _JOINED[op](a, b)) for n in x.shape
            )
        ),
        given,
    )


def place_of(path: Any) -> Path:
    """Where a file is to be; asked before any work.

    Raises:
        ExportError: if no file can be there.
    """
    found = Path(path)
    if not found.name or found.is_dir():
        raise ExportError(f"{str(path)!r} is a folder; the export is one file, e.g. 'network.onnx'")
    if not found.parent.is_dir():
        raise ExportError(f"{path} cannot be written: there is no folder {found.parent}; make it")
    if not os.access(found.parent, os.W_OK):
        raise ExportError(f"{path} cannot be written: the folder {found.parent} is read-only")
    return found


def written(
    target: str,
    path: Any,
    data: bytes,
    batch: int | None,
    *,
    examples: str = UNKNOWN,
    note: str = "",
    check: Callable[[Path], None] = lambda draft: None,
) -> Exported:
    """Writes a file, whole or not at all, and says what it is.

    Args:
        target: see `Exported`.
        path: of the file.
        data: its bytes.
        batch: see `Exported`.
        examples: see `Exported`.
        note: see `Exported`.
        check: opens the draft and raises where it is not right.
    """
    path = place_of(path)
    draft = path.with_name(path.name + ".part")
    try:
        draft.write_bytes(data)
        check(draft)
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # whatever is in the way
            draft.unlink(missing_ok=True)
        raise
    return Exported(
        target=target, path=path, size_bytes=len(data), batch=batch, examples=examples, note=note
    )
