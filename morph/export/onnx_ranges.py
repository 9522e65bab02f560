"""What every activation of an ONNX file spans on representative data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from morph.export.clipping import COUNTED, Ranges, before, narrowed, spread
from morph.export.onnx_layout import used_names

with contextlib.suppress(ModuleNotFoundError):  # `morph.export.onnx_int8` says so
    import onnx
    import onnxruntime
    from onnxruntime.quantization.calibrate import create_calibrator

TOGETHER = 32  # examples at once


def whole(
    path: Path, given: Any, names: Sequence[str], batch: int | None, operations: Sequence[str]
) -> Ranges:
    """The least and the largest value of what these operations take and give, by name.

    Args:
        path: of the file, in floats.
        given: representative inputs, a tree.
        names: of the file's inputs, in order.
        batch: how many examples it takes; None for any number.
        operations: e.g. `Conv`.
    """
    calibrator = create_calibrator(
        path,
        list(operations),
        augmented_model_path=str(path.with_name("augmented.onnx")),
    )  # by default, of the least and the largest value
    calibrator.collect_data(_Reader(_batches(given, names, batch or TOGETHER)))
    found = {name: np.ravel(own.range_value) for name, own in calibrator.compute_data().items()}
    return {name: (float(low), float(high)) for name, (low, high) in found.items()}


def narrow(
    path: Path,
    given: Any,
    names: Sequence[str],
    batch: int | None,
    ranges: Ranges,
    products: Sequence[str],
) -> Ranges:
    """Ranges within `whole` ones, see `clipping`.

    Args:
        path: see `whole`.
        given: see `whole`; some examples are counted, spread over all.
        names: see `whole`.
        batch: see `whole`.
        ranges: those of `whole`.
        products: the operations that are products.
    """
    model = onnx.load(path)
    ahead = before(
        (own.op_type in products, used_names([own]), own.output) for own in model.graph.node
    )
    known = {own.name for own in (*model.graph.input, *model.graph.output)}
    inner = [own for node in model.graph.node for own in node.output if own in ranges]
    inner = [own for own in inner if own in ahead]
    model.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(own) for own in inner if own not in known
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    results = [own.name for own in session.get_outputs() if own.name in inner]
    rows = spread(len(jax.tree.leaves(given)[0]), COUNTED)
    chosen = jax.tree.map(lambda leaf: leaf[rows], given)

    def values() -> Iterator[Mapping[str, Any]]:
        for feeds in _batches(chosen, names, batch or 1):
            yield {name: own for name, own in feeds.items() if name in ranges}
            if results:  # none stands for all
                yield dict(zip(results, session.run(results, feeds), strict=True))

    return narrowed(ranges, values())


def _batches(given: Any, names: Sequence[str], size: int) -> Iterator[dict[str, np.ndarray]]:
    leaves = jax.tree.leaves(given)
    for start in range(0, len(leaves[0]), size):
        rows = np.arange(start, start + size) % len(leaves[0])
        yield dict(zip(names, (leaf[rows] for leaf in leaves), strict=True))


class _Reader:
    """As ONNX Runtime asks for batches."""

    def __init__(self, rows: Iterator[dict[str, np.ndarray]]) -> None:
        self._rows = rows

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._rows, None)
