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
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from morph.errors import ExportError, need
from morph.export import onnx as floats
from morph.export import onnx_ranges
from morph.export.clipping import spread
from morph.export.exported import Exported, example_struct, place_of, written
from morph.export.onnx_lean import lean
from morph.export.trial import Trial, norm_difference
from regularizers import json_files
from regularizers.checks import FUNCTION, NAMES, NONE, PATH, checked, number
from regularizers.messages import near

_missing: ModuleNotFoundError | None = None
try:
    import onnx
    import onnxruntime
    from onnxruntime import quantization
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
except ModuleNotFoundError as error:
    _missing = error

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
ACTIVATIONS = ("Clip", "Relu")
BETWEEN = ("AveragePool", "Clip", "Concat", "MaxPool", "Relu", "Reshape", "Transpose")
ERRORS = "quantization_errors"  # in the file, see `errors`
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


@checked(fn=FUNCTION, path=PATH, keep=NAMES, within=number(above=0.0) | NONE)
def to_onnx_int8(
    fn: Callable[..., Any],
    variables: Any,
    example: Any,
    path: str | Path,
    *,
    calibration: Any,
    keep: str | Sequence[str] = (),
    within: float | None = None,
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
        within: how far the outputs may be off on the representative data, by their norm, e.g. 0.1:
            the layers that move them furthest stay float until they are not. None: none do.

    Returns:
        What was written; the note names the layers that should stay float, if any.

    Raises:
        ExportError: see `to_onnx`; if there are no representative data, a pattern matches no layer,
            nothing is left to quantize, or the file gives something else. MissingExtraError.

    Example:
        >>> to_onnx_int8(predict, variables, x, "net.onnx", calibration=images)  # doctest: +SKIP
    """
    check_installed()
    place_of(path)
    structs = example_struct(example)
    given, trial = _like(calibration, structs), Trial(fn, variables, example, structs)
    with tempfile.TemporaryDirectory() as folder:
        base = floats.to_onnx(fn, variables, example, Path(folder) / "float.onnx")
        network = _Network(base, given, floats.names_of(structs))
        patterns = [keep] if isinstance(keep, str) else keep
        whole = {name for pattern in patterns for name in network.matched(pattern)}
        if not network.layers or len(whole) == len(network.layers):
            raise ExportError(
                f"there is nothing to quantize: of {len(network.layers)} products with known "
                f"kernels {len(whole)} stay float; `to_onnx` writes floats"
            )
        alone = {name: network.moved([name]) for name in network.layers}
        whole |= network.more(alone, whole, within)
        found = [
            LayerError(layer=layer, error=alone[name], is_float=name in whole)
            for name, layer in network.layers.items()
        ]
        data = network.quantized([n for n in network.layers if n not in whole], found)
    weak = [f"{x.layer} ({x.error:.2g})" for x in found if x.error > STAY and not x.is_float]
    told = [base.note, f"should stay float (keep=): {', '.join(weak)}" if weak else ""]
    if within is not None and (kept := [x.layer for x in found if x.is_float]):
        told.append(f"float: {', '.join(kept)}")
    probes = network.probes

    def check(draft: Path) -> None:
        moved = norm_difference(trial.run(probes), load(draft)(probes))
        if not moved <= ROOM:
            raise ExportError(
                f"in int8 the outputs are off by {moved:.0%} of their norm. The layers that move "
                f"them furthest: {_furthest(found)}; keep these as floats (keep=, or within=), or "
                "calibrate with more data"
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


class _Network:
    """A network in floats, of which parts are made 8 bits.

    Attributes:
        layers: what stands where in the model, by the name of the product.
        probes: some representative inputs.

    Args:
        base: the file in floats.
        given: representative inputs.
        names: of the file's inputs.
    """

    def __init__(self, base: Exported, given: Any, names: Sequence[str]) -> None:
        self._model, self._folder = onnx.load(base.path), base.path.parent
        graph = self._model.graph
        known = {array.name for array in graph.initializer}
        products = [n.name for n in graph.node if n.op_type in PRODUCTS and n.input[1] in known]
        scopes = Counter(name.rpartition("/")[0] for name in products)
        own = {name: name.rpartition("/")[0] for name in products}
        self.layers = {name: own[name] if scopes[own[name]] == 1 else name for name in products}
        self.layers = {name: layer or name for name, layer in self.layers.items()}
        rows = spread(len(jax.tree.leaves(given)[0]), PROBES)
        self.probes = jax.tree.map(lambda leaf: leaf[rows], given)
        self._wanted = load(base.path)(self.probes)
        self._ranges = onnx_ranges.whole(
            base.path, given, names, base.batch, [*PRODUCTS, *BETWEEN]
        )  # fmt: skip
        if products:
            wide = self._ranges, self.moved(products, whole=True)
            self._ranges = onnx_ranges.narrow(
                base.path, given, names, base.batch, self._ranges, PRODUCTS
            )
            if self.moved(products, whole=True) > wide[1]:
                self._ranges = wide[0]

    def matched(self, pattern: str) -> list[str]:
        """The products whose layers match.

        Raises:
            ExportError: if there is none.
        """
        found = [n for n, layer in self.layers.items() if fnmatch.fnmatchcase(layer, pattern)]
        if not found:
            raise ExportError(
                f"keep={pattern!r} matches no layer{near(pattern, set(self.layers.values()))}"
            )
        return found

    def moved(self, products: Sequence[str], *, whole: bool = False) -> float:
        """How far the outputs move if these are of 8 bits, and with `whole` what is between."""
        path = self._folder / "some.onnx"
        path.write_bytes(self._made(products, whole).SerializeToString())
        return norm_difference(self._wanted, load(path)(self.probes))

    def more(
        self, alone: Mapping[str, float], kept: Container[str], within: float | None
    ) -> set[str]:
        """Which further products stay float, the worst first, until the outputs are `within`.

        Raises:
            ExportError: if they never are.
        """
        order = sorted((n for n in self.layers if n not in kept), key=lambda name: -alone[name])
        if within is None:
            return set()
        squares = np.cumsum([alone[name] ** 2 for name in order[::-1]])[::-1]
        count, moved = int(np.sum(squares > within**2)), np.inf
        while count < len(order):
            moved = self.moved(order[count:], whole=True)
            if moved <= within:
                return set(order[:count])
            count += max(1, count // 4)
        raise ExportError(
            f"in int8 the outputs are off by {moved:.2g} of their norm with nearly all layers in "
            f"floats, not within {within:g}; `to_onnx` writes floats"
        )

    def quantized(self, products: Sequence[str], found: Sequence[LayerError]) -> bytes:
        """The file with these products in 8 bits, and what stands between them."""
        made = self._made(products, True)
        rows = [vars(own) | {"error": float(f"{own.error:.3g}")} for own in found]
        facts = {x.key: x.value for x in self._model.metadata_props}
        onnx.helper.set_model_props(made, facts | {ERRORS: json_files.text(rows)})
        onnx.checker.check_model(made)
        return bytes(made.SerializeToString())

    def _made(self, products: Sequence[str], whole: bool) -> Any:
        nodes = [*products]
        ends = {own for n in self._model.graph.node if n.name in products for own in n.output}
        for node in self._model.graph.node:
            if node.op_type in ACTIVATIONS and node.input[0] in ends:
                ends.add(node.output[0])  # they become part of what rounds
                nodes.append(node.name)
            elif whole and _stays_between(node):
                nodes.append(node.name)
        data = {
            name: tuple(np.asarray(end, np.float32) for end in own)
            for name, own in self._ranges.items()
        }
        quantizer = QDQQuantizer(
            copy.deepcopy(self._model), per_channel=True, reduce_range=False,
            weight_qType=quantization.QuantType.QInt8,
            activation_qType=quantization.QuantType.QUInt8,
            tensors_range=TensorsData(quantization.CalibrationMethod.MinMax, data),
            nodes_to_quantize=nodes, nodes_to_exclude=[],
            op_types_to_quantize=[*PRODUCTS, *BETWEEN], extra_options={},
        )  # fmt: skip
        quantizer.quantize_model()
        lean(quantizer.model.model, self._model)
        return quantizer.model.model
