"""What stands in a TFLite file: its operations and tensors, as plain values.

Source: TFLite's schema (tensorflow/lite/schema/schema.fbs), which ai-edge-litert ships.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from morph.errors import ExportError, need

_missing: ModuleNotFoundError | None = None
try:
    from ai_edge_litert import schema_py_generated as schema
except ModuleNotFoundError as error:
    _missing = error


@dataclass(frozen=True, kw_only=True, eq=False)
class Tensor:
    """One tensor.

    Attributes:
        name: as the file has it.
        shape: of it.
        dtype: `INT8`, `INT32`, `FLOAT32`, ...
        value: of a constant; None for what is computed.
        scale: of its quantization: one number, or one per channel; () for none.
        zero_point: likewise.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    value: np.ndarray | None
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Operation:
    """One operation, e.g. `CONV_2D`.

    Attributes:
        name: of the schema's BuiltinOperator, or `CUSTOM`.
        inputs: its operands; those that are left out are not there.
        outputs: its results.
        options: its static parameters by their names in the schema.
    """

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """The main function of a TFLite file.

    Attributes:
        operations: in the order in which they run.
        inputs: the tensors that it takes.
        outputs: those that it returns.
    """

    operations: tuple[Operation, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def read(data: bytes) -> Graph:
    """Reads a TFLite file.

    Args:
        data: its content.

    Raises:
        ExportError: if it is none. MissingExtraError.
    """
    need("TFLite", _missing, "export")
    if data[4:8] != b"TFL3":
        raise ExportError("not a TFLite file: its identifier TFL3 is missing")
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    graph = model.subgraphs[0]
    tensors = [_tensor(t, _content(model.buffers[t.buffer], data)) for t in graph.tensors]

    def named(indices: Any) -> tuple[Tensor, ...]:
        return tuple(tensors[i] for i in indices if i >= 0)

    operations = tuple(
        Operation(
            name=_operator(model.operatorCodes[op.opcodeIndex]),
            inputs=named(op.inputs),
            outputs=named(op.outputs),
            options=vars(op.builtinOptions) if op.builtinOptions else {},
        )
        for op in graph.operators
    )
    return Graph(operations=operations, inputs=named(graph.inputs), outputs=named(graph.outputs))


def _content(buffer: Any, data: bytes) -> bytes:
    """Of a constant; b"" for none. Large files keep constants behind the flatbuffer."""
    if buffer.data is not None:
        return np.asarray(buffer.data, np.uint8).tobytes()
    return data[buffer.offset : buffer.offset + buffer.size] if buffer.offset > 1 else b""


def _tensor(tensor: Any, content: bytes) -> Tensor:
    dtype = _TYPES[tensor.type]
    shape = tuple(int(n) for n in tensor.shape) if tensor.shape is not None else ()
    value = None
    if content and dtype in _NUMPY:
        value = np.frombuffer(content, _NUMPY[dtype]).reshape(shape)
    scheme = tensor.quantization
    scale = scheme.scale if scheme is not None and scheme.scale is not None else ()
    zero = scheme.zeroPoint if scheme is not None and scheme.zeroPoint is not None else ()
    return Tensor(
        name=(tensor.name or b"").decode(errors="replace"),
        shape=shape,
        dtype=dtype,
        value=value,
        scale=tuple(map(float, scale)),
        zero_point=tuple(map(int, zero)),
    )


def _operator(code: Any) -> str:
    return _OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)]


def _names(enum: type) -> dict[int, str]:
    return {value: name for name, value in vars(enum).items() if isinstance(value, int)}


_NUMPY = {"INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
          "FLOAT32": np.float32, "UINT8": np.uint8}  # fmt: skip
_TYPES = {} if _missing else _names(schema.TensorType)
_OPERATORS = {} if _missing else _names(schema.BuiltinOperator)
