"""Collects the nodes and arrays of an ONNX file; what rules write to."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from morph.errors import ExportError
from morph.export.onnx_fold import compute_known, fold
from morph.export.onnx_layout import cancel_transposes, unused, used_names
from morph.export.onnx_rules.graph import Graph, Typed, Unsupported, computed
from morph.export.onnx_rules.table import AS_IT_IS, MOVED, MOVES, RULES, TOLD
from regularizers.primitives import jaxprs
from regularizers.primitives.jaxprs import ClosedJaxpr, JaxprEqn

with contextlib.suppress(ModuleNotFoundError):  # `morph.export.onnx` says so
    from onnx import helper, numpy_helper

OPSET, IR_VERSION = 21, 10  # of 2024; IR 10 is the one of opset 21
SMALL = 16  # numbers of an array that is kept once
_OPERATIONS = {
    "add": "Add",
    "floordiv": "Div",
    "max": "Max",
    "min": "Min",
    "mod": "Mod",
    "mul": "Mul",
}


@dataclass(kw_only=True)
class _File:
    """What all graphs of a file share."""

    places: Mapping[str, tuple[str, int]]  # of a size: the input and its axis
    taken: frozenset[str]  # names of inputs and outputs
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    known: dict[Any, str] = field(default_factory=dict)
    number: Any = field(default_factory=itertools.count)
    layer: str = ""  # whose equation is written
    sizes: dict[str, str] = field(default_factory=dict)
    top: Any = None

    def new(self, kind: str) -> str:
        """A name that nothing has."""
        return unused(f"{kind}_{next(self.number)}", self.taken)


class OnnxGraph:
    """See `onnx_rules.graph.Graph`."""

    def __init__(self, file: _File) -> None:
        self._file = file
        self._nodes: list[Any] = []
        self._casts: dict[tuple[str, Any], str] = {}

    @classmethod
    def of(cls, inputs: Mapping[str, Typed], outputs: Collection[str]) -> OnnxGraph:
        """An empty graph of a file.

        Args:
            inputs: by name; sizes that may vary have names.
            outputs: their names.
        """
        places = {
            str(n): (name, axis)
            for name, x in inputs.items()
            for axis, n in enumerate(x.shape)
            if str(n).isidentifier()
        }
        file = _File(places=places, taken=frozenset((*inputs, *outputs)))
        file.top = cls(file)
        return file.top

    def node(self, op: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """One node of one result."""
        (result,) = self.nodes(op, 1, *inputs, name=name, **attributes)
        return result

    def nodes(
        self, op: str, outputs: int, *inputs: str, name: str = "", **attributes: Any
    ) -> list[str]:
        """One node of several results."""
        made = [name or self._file.new(op) for _ in range(outputs)]
        label = "/".join(filter(None, (self._file.layer, made[0] if made else op)))
        self._nodes.append(helper.make_node(op, list(inputs), made, name=label, **attributes))
        return made

    def constant(self, value: Any) -> str:
        """An array, kept once where it is small."""
        value = np.asarray(value)
        key = (value.shape, value.dtype.str, value.tobytes()) if value.size <= SMALL else None
        if key in self._file.known:
            return self._file.known[key]
        name = self._file.new("constant")
        self._file.arrays[name] = value
        if key is not None:
            self._file.known[key] = name
        return name

    def value(self, name: str) -> np.ndarray | None:
        """The array of that name."""
        return self._file.arrays.get(name)

    def shape(self, shape: Sequence[Any]) -> str:
        """Sizes, int64 [n]; those that may vary are read off the inputs."""
        if all(isinstance(n, int) for n in shape):
            return self.constant(np.asarray(shape, np.int64))
        parts = []
        for n in shape:
            if isinstance(n, int):
                parts.append(self.constant(np.asarray([n], np.int64)))
            else:
                parts.append(self._size(n))
        return self.node("Concat", *parts, axis=0) if len(parts) > 1 else parts[0]

    def _size(self, n: Any) -> str:
        """A size that may vary, by arithmetic of those of the inputs."""
        file = self._file
        if str(n) in file.sizes:
            return file.sizes[str(n)]

        def named(part: Any) -> str:
            return (
                part if isinstance(part, str) else file.top.constant(np.asarray([part], np.int64))
            )

        read = {name: place for name, place in file.places.items() if name in str(n)}
        for name, (source, axis) in read.items():
            if name not in file.sizes:
                file.sizes[name] = file.top.node("Shape", source, start=axis, end=axis + 1)
        known = {name: file.sizes[name] for name in read}
        try:
            found = jaxprs.measured(
                n, known, lambda op, a, b: file.top.node(_OPERATIONS[op], named(a), named(b))
            )
        except KeyError as error:
            raise Unsupported(f"a size {n}, which no input has") from error
        file.sizes[str(n)] = found
        return str(found)

    def cast(self, name: str, dtype: Any) -> str:
        """Another type; of a constant at once."""
        key = name, np.dtype(dtype)
        value = self.value(name)
        if key not in self._casts:
            if (
                value is not None
                and value.dtype.kind in "?iuf"
                and np.dtype(dtype).kind in "?iuf"
                and value.size <= SMALL
            ):
                self._casts[key] = self.constant(value.astype(dtype))
            else:
                self._casts[key] = self.node("Cast", name, to=_code(dtype))
        return self._casts[key]

    def run(self, closed: ClosedJaxpr, operands: Sequence[str]) -> list[str]:
        """Writes equations; returns the names of their results.

        Raises:
            ExportError: where an equation has no counterpart; names it and its layer.
        """
        env: dict[Any, str] = dict(zip(closed.jaxpr.invars, operands, strict=True))

        def read(v: Any) -> str:
            if isinstance(v, jaxprs.Literal):
                aval: Any = v.aval
                return self.constant(np.asarray(v.val, aval.dtype))
            return env[v]

        for v, value in zip(closed.jaxpr.constvars, closed.consts, strict=True):
            if not jax.dtypes.issubdtype(jaxprs.dtype_of(v), jax.dtypes.extended):
                env[v] = self.constant(np.asarray(value))
        for eqn in jaxprs.live_equations(closed.jaxpr):
            scope, outside = jaxprs.scope(eqn), self._file.layer
            self._file.layer = scope.partition("[")[0].strip() or outside
            try:
                if any(not isinstance(v, jaxprs.Literal) and v not in env for v in eqn.invars):
                    raise Unsupported("it takes random keys, which ONNX lacks")
                env.update(
                    zip(eqn.outvars, self._results(eqn, list(map(read, eqn.invars))), strict=True)
                )
            except Unsupported as error:
                raise ExportError(
                    f"cannot write {eqn.primitive} in {scope or 'fn'} as ONNX: "
                    f"{error}. Write that layer with other operations, or export to StableHLO, "
                    "which has all of JAX."
                ) from None
            finally:
                self._file.layer = outside
        return [read(v) for v in closed.jaxpr.outvars]

    def _results(self, eqn: JaxprEqn, names: list[str]) -> list[str]:
        """By the rule of an equation, whose operands and results are of types that it knows."""
        rule = RULES.get(eqn.primitive)
        if rule is None:
            raise Unsupported("ONNX export has no rule for it")
        if eqn.primitive in AS_IT_IS:
            results = rule(self, eqn, *names)
            return [results] if isinstance(results, str) else results
        moves = eqn.primitive in MOVES

        def kept(v: Any) -> bool:
            dtype = np.dtype(jaxprs.dtype_of(v))
            return computed(v) == dtype or (moves and dtype in MOVED)

        wide = [
            name if kept(v) else self.cast(name, computed(v))
            for name, v in zip(names, eqn.invars, strict=True)
        ]
        results = rule(self, eqn, *wide)
        found = [results] if isinstance(results, str) else results
        if eqn.primitive in TOLD:
            return found
        return [
            name if kept(v) else self.cast(name, jaxprs.dtype_of(v))
            for name, v in zip(found, eqn.outvars, strict=True)
        ]

    def body(
        self,
        inputs: Sequence[Typed],
        write: Callable[[Graph, list[str]], list[str]],
        outputs: Sequence[Typed],
    ) -> Any:
        """A graph inside of this file."""
        inner = OnnxGraph(self._file)
        given = {self._file.new("given"): x for x in inputs}
        names = [inner.node("Identity", name) for name in write(inner, list(given))]
        return helper.make_graph(
            inner._nodes,
            self._file.new("body"),
            [_described(name, x) for name, x in given.items()],
            [_typed(name, x) for name, x in zip(names, outputs, strict=True)],
        )

    def model(self, inputs: Mapping[str, Typed], outputs: Mapping[str, Typed], **facts: str) -> Any:
        """The finished model; arrays that nothing uses are left out."""
        arrays = self._file.arrays
        nodes = compute_known(self._nodes, arrays, self._file.taken)
        for change in (cancel_transposes, fold):
            nodes = change(nodes, arrays, self._file.taken, helper.make_node)
        used = set(used_names(nodes))
        stored = [numpy_helper.from_array(a, n) for n, a in arrays.items() if n in used]
        graph = helper.make_graph(
            nodes,
            "network",
            [_described(name, x) for name, x in inputs.items()],
            [_described(name, x) for name, x in outputs.items()],
            stored,
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(
            graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="morph"
        )
        helper.set_model_props(model, facts)
        return model


def _code(dtype: Any) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _described(name: str, array: Typed) -> Any:
    names = [str(n) if str(n).isidentifier() else None for n in array.shape]
    shape = [n if isinstance(n, int) else name for n, name in zip(array.shape, names, strict=True)]
    return helper.make_tensor_value_info(name, _code(array.dtype), shape)


def _typed(name: str, array: Typed) -> Any:
    return helper.make_tensor_value_info(name, _code(array.dtype), None)
