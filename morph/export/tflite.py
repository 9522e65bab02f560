"""Full-int8 TFLite: from StableHLO by LiteRT's converter, quantized with representative data.

The network goes through three hands: `jax.export` writes its equations as StableHLO, LiteRT's
converter (`litert-converter`) makes TFLite operations of them, folding batch norms and activations
into what they follow, and LiteRT's quantizer (`ai-edge-quantizer`) runs the representative data
through that and makes all of it int8: weights per output channel and symmetric, activations per
tensor with a zero point. TensorFlow is not needed.

Sources: Jacob et al. 2018, "Quantization and training of neural networks for efficient
integer-arithmetic-only inference"; LiteRT 8-bit quantization specification.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export
from jaxtyping import Float

from morph.errors import ExportError, need
from morph.export import clipping, flatbuffer
from morph.export.clipping import Ranges
from morph.export.exported import (
    INDEPENDENT,
    MIXED,
    UNKNOWN,
    Exported,
    Runner,
    batched,
    example_struct,
    place_of,
    written,
)
from morph.export.flatbuffer import Operation
from morph.export.frozen import Step, culprit, freeze, steps
from morph.export.trial import Trial, norm_difference
from regularizers.checks import FUNCTION, PATH, checked
from regularizers.primitives.jaxprs import JaxprEqn
from regularizers.primitives.jaxprs import primitives as p

_missing: ModuleNotFoundError | None = None
try:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType
    from ai_edge_quantizer.quantizer import Quantizer
    from ai_edge_quantizer.recipe import static_wi8_ai8
    from litert_converter.mlir import ir
    from litert_converter.mlir._mlir_libs import converter_api_ext
    from litert_converter.mlir.dialects import stablehlo
    from litert_converter.mlir.ir import MLIRError
    from litert_converter.mlir.passmanager import PassManager
except ModuleNotFoundError as error:
    _missing = error

INPUT, OUTPUT = "input", "logits"
ONE = "one_example"  # the input of a file whose function does not mix examples
ROOM = 0.5  # of the norm of all outputs: what rounding to 8 bits may take
PRODUCTS = (
    "BATCH_MATMUL", "CONV_2D", "CONV_3D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV",
)  # fmt: skip
FEW = 2  # samples, of which nothing is cut off
CHECKED = 16  # representative examples that the file is run on
_SIGNATURE = "serving_default"


def check_installed() -> None:
    """Raises `MissingExtraError`, before any work, if a package is missing."""
    need("TFLite", _missing, "export")


@checked(fn=FUNCTION, path=PATH)
def to_tflite(
    fn: Callable[..., Any],
    variables: Any,
    example: Any,
    path: str | Path,
    *,
    calibration: Float[np.ndarray, "n ..."],
) -> Exported:
    """Writes a function and its weights as one TFLite file of 8-bit integers, batch 1.

    Input and output are int8 too, with a scale and a zero point each; `load` converts them.

    Args:
        fn: `fn(variables, x)`, one array of floats out; e.g. `network.predict`.
        variables: the weights, which go into the file.
        example: an input [N, H, W, C] of floats, an array or its shape.
        path: of the file.
        calibration: representative inputs [M, H, W, C]: the range of every activation is what they
            make of it. Some hundred training examples are customary; augmented ones do.

    Raises:
        ExportError: if there are no representative data, or of another shape; if the function
            mixes examples; if an operation has no int8 counterpart, naming it and its layer; if
            the file gives something else. MissingExtraError.

    Example:
        >>> to_tflite(predict, variables, x, "net.tflite", calibration=images)  # doctest: +SKIP
        >>> load("net.tflite")(images)                                          # doctest: +SKIP
    """
    check_installed()
    place_of(path)
    struct = example_struct(example)
    if not isinstance(struct, jax.ShapeDtypeStruct) or len(jax.tree.leaves(
        jax.eval_shape(fn, variables, struct)
    )) != 1:  # fmt: skip
        raise ExportError(
            "int8 TFLite takes a function of one array that gives one array. Wrap it: "
            "lambda variables, x: fn(variables, x)[0]; ONNX and StableHLO take trees."
        )
    data = _checked(calibration, struct)
    if (examples := Trial(fn, variables, struct, struct).mixing()) == MIXED:
        raise ExportError(
            "int8 TFLite takes one example at a time, and this function mixes the examples of a "
            "batch (or reads their number); ONNX and StableHLO take whole batches."
        )
    samples = [[one[None]] for one in data]
    single = struct.update(shape=(1, *struct.shape[1:]))
    name = ONE if examples == INDEPENDENT else INPUT
    for rewrites in ({}, REWRITES):
        run = freeze(fn, variables, rewrites=rewrites)
        built, problem = _built(run, [single], samples, name)
        if not problem:
            return written(
                "tflite", path, built, 1, examples=examples,
                check=lambda draft: _agrees(load(draft), fn, variables, data[:CHECKED]),
            )  # fmt: skip
    raise _explained(steps(fn, variables, single, rewrites=REWRITES), problem)


def _agrees(run: Runner, fn: Callable[..., Any], variables: Any, data: np.ndarray) -> None:
    """Whether a file gives about what JAX does.

    Raises:
        ExportError: if it does not.
    """
    one = jax.jit(fn)
    expected = np.concatenate([np.asarray(one(variables, x[None])) for x in data])
    found = np.concatenate([run(x[None]) for x in data])
    lost = norm_difference(expected, found)
    if not lost <= ROOM:
        raise ExportError(
            f"in 8 bits the outputs of this network are off by {lost:.0%} of their norm on "
            "the representative data. Give data like those that it will see, or keep "
            "floats: ONNX and StableHLO."
        )


def load(path: str | Path) -> Runner:
    """Opens a TFLite file in LiteRT; returns inputs [N, ...] -> outputs [N, ...], both floats.

    Inputs are rounded to the file's integers, outputs are scaled back. One example at a time.

    Raises:
        ExportError: if the file cannot be read. MissingExtraError.
    """
    check_installed()
    try:
        interpreter = Interpreter(str(path))
        interpreter.allocate_tensors()
    except ValueError as error:
        raise ExportError(f"LiteRT cannot read {path}: {error}") from error
    (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(x: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given["index"], _quantized(x, given))
        interpreter.invoke()
        return _floats(interpreter.get_tensor(result["index"]), result)

    names = [n for own in interpreter.get_signature_list().values() for n in own["inputs"]]
    examples = INDEPENDENT if names == [f"{ONE}_0"] else UNKNOWN
    return batched(run, int(given["shape"][0]), examples)


def _quantized(x: np.ndarray, tensor: Any) -> np.ndarray:
    scale, zero = tensor["quantization"]
    if not scale:
        return x.astype(tensor["dtype"])
    limits = np.iinfo(tensor["dtype"])
    return np.clip(np.round(x / scale) + zero, limits.min, limits.max).astype(tensor["dtype"])


def _floats(value: np.ndarray, tensor: Any) -> np.ndarray:
    scale, zero = tensor["quantization"]
    found = value.astype(np.float32)
    return (found - zero) * scale if scale else found


def _checked(calibration: Any, struct: jax.ShapeDtypeStruct) -> np.ndarray:
    """Representative data as floats [M, ...]."""
    data = np.asarray(calibration)
    wanted = f"[M, {', '.join(map(str, struct.shape[1:]))}]"
    if not jnp.issubdtype(struct.dtype, jnp.floating):
        raise ExportError(f"int8 TFLite takes inputs of floats, e.g. images; found {struct.dtype}")
    if data.ndim == 0 or not len(data):
        raise ExportError(
            "int8 TFLite needs representative data to measure the range of every activation; "
            f"found none. Pass calibration=, some hundred examples {wanted}."
        )
    if data.shape[1:] != struct.shape[1:]:
        raise ExportError(
            f"the representative data have shape {list(data.shape)}; the network takes {wanted}"
        )
    if not np.all(np.isfinite(data)):
        raise ExportError("the representative data hold numbers that are not finite")
    return data.astype(np.float32)


def _built(
    run: Callable[..., Any],
    structs: Sequence[jax.ShapeDtypeStruct],
    samples: Sequence[Sequence[np.ndarray]],
    name: str = INPUT,
) -> tuple[bytes, str]:
    """The int8 file of a function, and what is wrong with it; "" for nothing."""
    try:
        model = _converted(run, structs, name)
        foreign = [op.name for op in flatbuffer.read(model).operations if not _is_builtin(op)]
        if foreign:
            return b"", f"it becomes {foreign[0]}, which is no TFLite operation"
        with warnings.catch_warnings():  # that it keeps all tensors, which it does to read them
            warnings.filterwarnings("ignore", ".*experimental_preserve_all_tensors.*")
            data = _closest(model, samples)
    except (MLIRError, ValueError, RuntimeError, NotImplementedError) as error:
        return b"", str(error).strip().split("\n")[0]
    floats = [op.name for op in flatbuffer.read(data).operations if not _is_int8(op)]
    floats.sort(key=lambda name: name in ("DEQUANTIZE", "QUANTIZE"))  # what is between them
    return data, f"{floats[0]} has no int8 form" if floats else ""


def _closest(model: bytes, samples: Sequence[Sequence[np.ndarray]]) -> bytes:
    """The file in 8 bits: by whole ranges or narrower ones, whichever gives about the same."""
    chosen = [samples[k] for k in clipping.spread(len(samples), clipping.COUNTED)]
    whole = _ranges(model, samples)
    wanted = _results(model, chosen)

    def made(ranges: Ranges) -> bytes:
        given = {
            name: {"min": np.full(1, low, np.float32), "max": np.full(1, high, np.float32)}
            for name, (low, high) in sorted(ranges.items())
        }
        result = Quantizer(model, static_wi8_ai8()).quantize(
            given, enable_progress_bar=False, enable_progress_report=False
        )
        return bytes(result.quantized_model)

    forms = [made(whole)]
    if len(samples) > FEW:
        graph = flatbuffer.read(model)
        ahead = clipping.before(
            (op.name in PRODUCTS, (t.name for t in op.inputs), [t.name for t in op.outputs])
            for op in graph.operations
        )
        inner = [name for name in whole if name in ahead]
        forms.append(made(clipping.narrowed(whole, _values(model, chosen, inner))))
    return min(forms, key=lambda own: norm_difference(wanted, _results(own, chosen)))


def _ranges(model: bytes, samples: Sequence[Sequence[np.ndarray]]) -> Ranges:
    """The least and the largest value of every computed tensor over all samples, by name.

    The quantizer's own calibration takes moving averages instead, which cut off what is rare.
    """
    graph = flatbuffer.read(model)
    computed = {t.name for op in graph.operations for t in op.outputs if t.dtype == "FLOAT32"}
    computed |= {t.name for t in graph.inputs}
    low = dict.fromkeys(sorted(computed), np.inf)
    high = dict.fromkeys(low, -np.inf)
    for values in _values(model, samples, list(low)):
        for name, value in values.items():
            low[name] = min(low[name], value.min())
            high[name] = max(high[name], value.max())
    return {name: (float(low[name]), float(high[name])) for name in low}


def _values(
    model: bytes, samples: Sequence[Sequence[np.ndarray]], names: Sequence[str]
) -> Iterator[dict[str, np.ndarray]]:
    """What tensors are for each sample."""
    interpreter = Interpreter(
        model_content=model,
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    places = {d["name"]: d["index"] for d in interpreter.get_tensor_details()}
    given = [places[t.name] for t in flatbuffer.read(model).inputs]
    for sample in samples:
        for index, value in zip(given, sample, strict=True):
            interpreter.set_tensor(index, value)
        interpreter.invoke()
        yield {name: interpreter.get_tensor(places[name]) for name in names}


def _results(model: bytes, samples: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """What a file makes of samples, as floats."""
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    (result,) = interpreter.get_output_details()
    found = []
    for sample in samples:
        for tensor, value in zip(interpreter.get_input_details(), sample, strict=True):
            interpreter.set_tensor(tensor["index"], _quantized(value, tensor))
        interpreter.invoke()
        found.append(_floats(interpreter.get_tensor(result["index"]), result))
    return np.stack(found)


def _converted(
    run: Callable[..., Any], structs: Sequence[jax.ShapeDtypeStruct], name: str
) -> bytes:
    """The TFLite file of a function, in floats."""
    exported = jax_export.export(jax.jit(run), platforms=["cpu"])(*structs)
    context = ir.Context()
    converter_api_ext.prepare_mlir_context(context)
    with context, ir.Location.unknown():
        module = stablehlo.deserialize_portable_artifact(context, exported.mlir_module_serialized)
        names = [f"{name}_{i}" for i in range(len(structs))]
        converter_api_ext.set_signature(module.operation, _SIGNATURE, names, [OUTPUT])
        options = converter_api_ext.ConvertToTFLConfig()
        converter_api_ext.run_convert_to_tfl_passes(module, PassManager(), options)
        return converter_api_ext.export_flatbuffer_to_bytes(module.operation)


def _is_builtin(op: Operation) -> bool:
    return op.name != "CUSTOM" and not op.name.startswith("STABLEHLO_")


def _is_int8(op: Operation) -> bool:
    """Whether it computes with 8-bit integers; biases, axes and indices have more bits."""
    return all(tensor.dtype != "FLOAT32" for tensor in (*op.inputs, *op.outputs))


def _explained(found: Sequence[Step], problem: str) -> ExportError:
    """The error that names the operation and its layer."""
    guilty = culprit(found, _refusal)
    if guilty is None:
        return ExportError(f"LiteRT cannot make an int8 file of this network: {problem}")
    step, why = guilty
    return ExportError(
        f"cannot write {step.eqn.primitive} in {step.where} as int8 TFLite: {why}. Write that "
        "layer with operations that TFLite has in int8 (docs/export.md), or cut it off and run it "
        "on the host; ONNX and StableHLO keep floats."
    )


def _refusal(step: Step) -> str:
    """Why an equation alone cannot be int8; "" if it can, or is no arithmetic on floats."""
    run, structs = step.alone()
    if not structs or any(not jnp.issubdtype(s.dtype, jnp.floating) for s in structs):
        return ""
    rng = np.random.default_rng(0)
    samples = [[rng.uniform(0.1, 1.0, s.shape).astype(np.float32) for s in structs]] * 2
    return _built(lambda *values: run(*values)[0], structs, samples)[1]


def _pad_first(eqn: JaxprEqn, x: Any, *_: Any) -> Any:
    """A window sum over a padded map: TFLite's pools leave what is padded out of the mean."""
    params = eqn.params
    if not any(map(any, params["padding"])) or set(params["base_dilation"]) > {1}:
        return None
    padded = jax.lax.pad(x, jnp.zeros((), x.dtype), [(*pair, 0) for pair in params["padding"]])
    return eqn.primitive.bind(padded, **{**params, "padding": ((0, 0),) * x.ndim})


REWRITES = {p.reduce_window_sum_p: _pad_first}
"""What is written otherwise if the converter does not know it as it is."""
