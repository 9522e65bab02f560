"""ONNX in 8-bit integers: ONNX Runtime's static quantization, per channel, calibrated on data.

Products and what stands between them compute in int8; the rest stays float, as do the layers that
are named. Of every product it is measured how far the outputs move if it alone is int8: those that
move them furthest should stay float.
"""

from __future__ import annotations

import copy
import fnmatch
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from morph.errors import ExportError, need
from morph.export import onnx as floats
from morph.export.exported import Exported, example_struct, written
from morph.export.trial import Trial, norm_difference
from regularizers import json_files
from regularizers.checks import FUNCTION, NAMES, PATH, checked
from regularizers.messages import near

_missing: ModuleNotFoundError | None = None
try:
    import onnx
    import onnxruntime
    from onnxruntime import quantization
    from onnxruntime.quantization.calibrate import create_calibrator
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
except ModuleNotFoundError as error:
    _missing = error

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
BETWEEN = ("AveragePool", "Clip", "Concat", "MaxPool", "Relu", "Reshape", "Transpose")
ERRORS = "quantization_errors"  # in the file, see `errors`
TOGETHER = 32  # representative examples at once
PROBES = 32  # representative examples that each layer is measured with
ROOM = 0.5  # of the norm of all outputs: what rounding to 8 bits may take
STAY = 0.05  # of that norm: a layer that moves the outputs further should stay float

load = floats.load


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """What rounding one layer to int8 does.

    Attributes:
        layer: where the product stands in the model, as `keep` takes it.
        error: how far the outputs move if it alone is int8: the norm of the difference by the norm
            of the outputs.
        is_float: whether it stayed float.
    """

    layer: str
    error: float
    is_float: bool


def check_installed() -> None:
    """Raises `MissingExtraError`, before any work, if a package is missing."""
    need("ONNX", _missing, "export")


@checked(fn=FUNCTION, path=PATH, keep=NAMES)
def to_onnx_int8(
    fn: Callable[..., Any],
    variables: Any,
    example: Any,
    path: str | Path,
    *,
    calibration: Any,
    keep: str | Sequence[str] = (),
) -> Exported:
    """Writes a function and its weights as one ONNX file of 8-bit integers.

    Inputs and outputs are floats as in `to_onnx`, and the batch is as open.

    Args:
        fn: `fn(variables, x)`, see `to_onnx`.
        variables: the weights, which go into the file.
        example: an input [N, ...], or a tree, see `to_onnx`.
        path: of the file.
        calibration: representative inputs [M, ...] like the example: the range of every activation
            is what they make of it. Some hundred training examples are customary.
        keep: patterns of layers that stay float, e.g. `"Dense_0/*"`; `errors` names layers.

    Returns:
        What was written; the note names the layers that should stay float, if any.

    Raises:
        ExportError: see `to_onnx`; if there are no representative data, a pattern matches no layer,
            nothing is left to quantize, or the file gives something else. MissingExtraError.

    Example:
        >>> to_onnx_int8(predict, variables, x, "net.onnx", calibration=images)  # doctest: +SKIP
    """
    check_installed()
    structs = example_struct(example)
    given, trial = _like(calibration, structs), Trial(fn, variables, example, structs)
    with tempfile.TemporaryDirectory() as folder:
        base = floats.to_onnx(fn, variables, example, Path(folder) / "float.onnx")
        model = onnx.load(base.path)
        products = [n.name for n in model.graph.node if _is_product(n, model)]
        scopes = Counter(name.rpartition("/")[0] for name in products)
        layers = {n: n.rpartition("/")[0] if scopes[n.rpartition("/")[0]] == 1 else n
                  for n in products}  # fmt: skip
        layers = {name: layer or name for name, layer in layers.items()}
        patterns = [keep] if isinstance(keep, str) else keep
        for pattern in patterns:
            if not any(fnmatch.fnmatchcase(own, pattern) for own in layers.values()):
                raise ExportError(
                    f"keep={pattern!r} matches no layer{near(pattern, set(layers.values()))}"
                )
        whole = {n for n in products if any(fnmatch.fnmatchcase(layers[n], k) for k in patterns)}
        if not products or len(whole) == len(products):
            raise ExportError(
                f"there is nothing to quantize: of {len(products)} products with known kernels "
                f"{len(whole)} stay float; `to_onnx` writes floats"
            )
        ranges = _ranges(base, given, floats.names_of(structs))
        probes = jax.tree.map(lambda leaf: leaf[:PROBES], given)
        wanted = load(base.path)(probes)
        found = []
        for name in products:
            (Path(folder) / "one.onnx").write_bytes(_quantized(model, ranges, [name]))
            moved = norm_difference(wanted, load(Path(folder) / "one.onnx")(probes))
            found.append(LayerError(layer=layers[name], error=moved, is_float=name in whole))
        data = _quantized(model, ranges, [n for n in products if n not in whole], found)
    weak = [f"{x.layer} ({x.error:.2g})" for x in found if x.error > STAY and not x.is_float]
    told = [base.note, f"should stay float (keep=): {', '.join(weak)}" if weak else ""]

    def check(draft: Path) -> None:
        moved = norm_difference(trial.run(probes), load(draft)(probes))
        if not moved <= ROOM:
            raise ExportError(
                f"in int8 the outputs are off by {moved:.0%} of their norm. The layers that move "
                f"them furthest: {_furthest(found)}; keep these as floats (keep=), or calibrate "
                "with more data"
            )

    return written(
        "onnx_int8", path, data, base.batch, examples=base.examples,
        note="; ".join(filter(None, told)), check=check,
    )  # fmt: skip


def errors(path: str | Path) -> list[LayerError]:
    """What rounding each layer of a file to int8 does to the outputs, the worst first.

    Raises:
        ExportError: if the file is none of `to_onnx_int8`. MissingExtraError.
    """
    check_installed()
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        rows = json_files.parse(session.get_modelmeta().custom_metadata_map[ERRORS])
        found = [LayerError(**row) for row in rows]
    except Exception as error:  # ONNX Runtime's own classes have no common base
        raise ExportError(f"{path} is not a file of to_onnx_int8: {error}") from error
    return sorted(found, key=lambda own: -own.error)


def _furthest(found: Sequence[LayerError]) -> str:
    worst = sorted((x for x in found if not x.is_float), key=lambda own: -own.error)[:3]
    return ", ".join(f"{x.layer} ({x.error:.2g})" for x in worst)


def _is_product(node: Any, model: Any) -> bool:
    known = {array.name for array in model.graph.initializer}
    return node.op_type in PRODUCTS and node.input[1] in known


def _stays_between(node: Any) -> bool:
    """Whether it has a form in 8 bits; average pools with gaps have none."""
    gaps = node.op_type == "AveragePool" and any(own.name == "dilations" for own in node.attribute)
    return node.op_type in BETWEEN and not gaps


def _like(calibration: Any, structs: Any) -> Any:
    """Representative inputs as arrays of the types of the example.

    Raises:
        ExportError: if they are something else.
    """
    found: Any = jax.tree.structure(calibration)  # JAX leaves their type open
    same = found == jax.tree.structure(structs)
    pairs = zip(jax.tree.leaves(calibration), jax.tree.leaves(structs), strict=False)
    if not same or not all(
        np.ndim(a) and np.shape(a)[1:] == x.shape[1:] and len(a) for a, x in pairs
    ):
        raise ExportError(
            "calibration takes representative inputs: arrays [M, ...] like the example "
            f"{jax.tree.map(lambda x: list(x.shape), structs)} with M of at least 1; found "
            f"{jax.tree.map(lambda a: list(np.shape(a)), calibration)}"
        )
    return jax.tree.map(lambda a, x: np.asarray(a, x.dtype), calibration, structs)


def _ranges(base: Exported, given: Any, names: Sequence[str]) -> Any:
    """The least and the largest value of every activation."""
    leaves = jax.tree.leaves(given)
    total, size = len(leaves[0]), base.batch or TOGETHER

    def batches() -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, total, size):
            rows = np.arange(start, start + size) % total
            yield dict(zip(names, (leaf[rows] for leaf in leaves), strict=True))

    calibrator = create_calibrator(
        base.path,
        [*PRODUCTS, *BETWEEN],
        augmented_model_path=str(base.path.with_name("augmented.onnx")),
        calibrate_method=quantization.CalibrationMethod.MinMax,
    )
    reader = _Reader()
    reader.rows = batches()
    calibrator.collect_data(reader)
    return calibrator.compute_data()


if _missing is None:

    class _Reader(quantization.CalibrationDataReader):
        rows: Iterator[dict[str, np.ndarray]]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.rows, None)


def _quantized(
    model: Any, ranges: Any, products: Sequence[str], found: Sequence[LayerError] = ()
) -> bytes:
    """The model with these products in int8, and what stands between them."""
    between = [n.name for n in model.graph.node if _stays_between(n)] if found else []
    quantizer = QDQQuantizer(
        copy.deepcopy(model), per_channel=True, reduce_range=False,
        weight_qType=quantization.QuantType.QInt8, activation_qType=quantization.QuantType.QUInt8,
        tensors_range=ranges, nodes_to_quantize=[*products, *between], nodes_to_exclude=[],
        op_types_to_quantize=[*PRODUCTS, *BETWEEN], extra_options={},
    )  # fmt: skip
    quantizer.quantize_model()
    made = quantizer.model.model
    if found:
        rows = [vars(own) for own in found]
        onnx.helper.set_model_props(
            made,
            {x.key: x.value for x in model.metadata_props} | {ERRORS: json_files.text(rows)},
        )
    return bytes(made.SerializeToString())
