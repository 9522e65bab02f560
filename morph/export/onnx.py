"""ONNX: the file that ONNX Runtime runs, and whatever else reads ONNX.

The equations of `freeze` are written one by one, by the table of `onnx_operations`; ONNX's own
checker reads the result.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export as jax_export

from morph.errors import ExportError, need
from morph.export.exported import Exported, Runner, batched, example_struct, written
from morph.export.frozen import for_any_batch, freeze
from morph.export.onnx_operations import RULES, Unsupported
from regularizers.checks import FUNCTION, PATH, checked
from regularizers.primitives import jaxprs

_missing: ModuleNotFoundError | None = None
try:
    import onnx
    import onnxruntime
    from onnx import helper, numpy_helper
except ModuleNotFoundError as error:
    _missing = error

INPUT, OUTPUT, BATCH = "input", "logits", "batch"
OPSET, IR_VERSION = 21, 10  # of 2024; IR 10 is the one of opset 21


def check_installed() -> None:
    """Raises `MissingExtraError`, before any work, if a package is missing."""
    need("ONNX", _missing, "export")


@checked(fn=FUNCTION, path=PATH)
def to_onnx(fn: Callable[..., Any], variables: Any, example: Any, path: str | Path) -> Exported:
    """Writes a function and its weights as one ONNX file.

    The file takes a batch of any size where the function allows it; where it does not, the
    example's batch is fixed and the note says why. Values and layouts are those of JAX, so images
    are [N, H, W, C].

    Args:
        fn: `fn(variables, x)`, one array out; e.g. `network.predict`.
        variables: the weights, which go into the file.
        example: an input [N, ...], an array or its shape.
        path: of the file.

    Raises:
        ExportError: if an operation has no counterpart, naming it and its layer.

    Example:
        >>> to_onnx(network.predict, variables, x, "net.onnx")       # doctest: +SKIP
        >>> load("net.onnx")(images)                                 # doctest: +SKIP
    """
    check_installed()
    struct = example_struct(example)
    (any_batch,) = jax_export.symbolic_shape(BATCH)
    open_struct, note = struct.update(shape=(any_batch, *struct.shape[1:])), ""
    for form in for_any_batch(fn, variables, struct):
        try:
            model = _convert(freeze(form, variables), open_struct)
            return written("onnx", path, _checked(model), None)
        except Exception as error:  # whatever the user's code makes of a size without a value
            cause = str(error).strip().split("\n")[0]
            note = note or f"the batch is fixed: {type(error).__name__}: {cause}"
    model = _convert(freeze(fn, variables), struct)
    return written("onnx", path, _checked(model), struct.shape[0], note)


def load(path: str | Path) -> Runner:
    """Opens an ONNX file in ONNX Runtime, on the CPU; returns inputs [N, ...] -> outputs.

    Raises:
        ExportError: if the file cannot be read. MissingExtraError.
    """
    check_installed()
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own classes have no common base
        raise ExportError(f"ONNX Runtime cannot read {path}: {error}") from error
    (given,) = session.get_inputs()
    batch = given.shape[0] if isinstance(given.shape[0], int) else None
    return batched(lambda x: session.run(None, {given.name: x})[0], batch)


def _checked(model: Any) -> bytes:
    """The model as bytes, read by ONNX's checker, which infers all shapes."""
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _convert(fn: Callable[[Any], Any], struct: jax.ShapeDtypeStruct) -> Any:
    """The model, as ONNX's protocol buffer."""
    closed = jax.make_jaxpr(fn)(struct)
    graph = _Graph(struct)
    env: dict[Any, str] = {}

    def read(v: Any) -> str:
        return graph.constant(np.asarray(v.val, v.aval.dtype)) if _literal(v) else env[v]

    env[closed.jaxpr.invars[0]] = INPUT
    for v, value in zip(closed.jaxpr.constvars, closed.consts, strict=True):
        env[v] = graph.constant(np.asarray(value))
    for eqn in jaxprs.live_equations(closed.jaxpr):
        rule = RULES.get(eqn.primitive)
        try:
            if rule is None:
                raise Unsupported("ONNX export has no rule for it")
            results = rule(graph, eqn, *map(read, eqn.invars))
        except Unsupported as error:
            raise ExportError(
                f"cannot write {eqn.primitive} in {jaxprs.scope(eqn)} as ONNX: {error}. Write that "
                "layer with other operations, or export to StableHLO, which has all of JAX."
            ) from None
        names = [results] if isinstance(results, str) else results
        env.update(zip(eqn.outvars, names, strict=True))
    (out,) = closed.jaxpr.outvars
    graph.node("Identity", read(out), name=OUTPUT)
    return graph.model(out.aval)


def _literal(v: Any) -> bool:
    return isinstance(v, jaxprs.Literal)


class _Graph:
    """Collects nodes and arrays; see `onnx_operations.Graph`."""

    def __init__(self, struct: jax.ShapeDtypeStruct) -> None:
        self._input = struct
        self._nodes: list[Any] = []
        self._arrays: dict[str, np.ndarray] = {}
        self._known: dict[Any, str] = {}  # small arrays that are there already
        self._batch = ""
        self._number = itertools.count()

    def node(self, op: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        (result,) = self.nodes(op, 1, *inputs, name=name, **attributes)
        return result

    def nodes(
        self, op: str, outputs: int, *inputs: str, name: str = "", **attributes: Any
    ) -> list[str]:
        made = [name or f"{op}_{next(self._number)}" for _ in range(outputs)]
        self._nodes.append(helper.make_node(op, list(inputs), made, name=made[0], **attributes))
        return made

    def constant(self, value: Any) -> str:
        value = np.asarray(value)
        key = (value.shape, value.dtype.str, value.tobytes()) if value.size <= 16 else None
        if key in self._known:
            return self._known[key]
        name = f"constant_{next(self._number)}"
        self._arrays[name] = value
        if key is not None:
            self._known[key] = name
        return name

    def value(self, name: str) -> np.ndarray | None:
        return self._arrays.get(name)

    def shape(self, shape: Sequence[Any]) -> str:
        if all(isinstance(n, int) for n in shape):
            return self.constant(np.asarray(shape, np.int64))
        if not self._batch:
            self._batch = self.node("Shape", INPUT, start=0, end=1)
        parts = []
        for n in shape:
            if isinstance(n, int):
                parts.append(self.constant(np.asarray([n], np.int64)))
            elif n == self._input.shape[0]:
                parts.append(self._batch)
            else:
                raise Unsupported(f"a size {n} that depends on the batch")
        return self.node("Concat", *parts, axis=0)

    def cast(self, name: str, dtype: Any) -> str:
        return self.node("Cast", name, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def model(self, out: Any) -> Any:
        """The finished model; arrays that nothing uses are left out."""
        used = {name for node in self._nodes for name in node.input}
        graph = helper.make_graph(
            self._nodes,
            "network",
            [_described(INPUT, self._input)],
            [_described(OUTPUT, out)],
            [numpy_helper.from_array(a, n) for n, a in self._arrays.items() if n in used],
        )
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(
            graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="morph"
        )


def _described(name: str, array: Any) -> Any:
    shape = [n if isinstance(n, int) else BATCH for n in array.shape]
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(array.dtype))
    return helper.make_tensor_value_info(name, dtype, shape)
