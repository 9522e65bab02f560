"""Transposes moved down through what does not mind the order of axes, until two cancel.

ONNX wants channels in front, JAX mostly has them last, so convolutions are written between two
transposes. ONNX Runtime removes most of them when it opens a file, but not around 8-bit integers,
and other readers remove none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np

_EACH = frozenset((
    "Abs", "Add", "And", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Cast", "Ceil",
    "Cos", "Div", "Elu", "Equal", "Erf", "Exp", "Floor", "Greater", "GreaterOrEqual", "IsInf",
    "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Min", "Mul", "Neg", "Not", "Or",
    "Pow", "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sin", "Softplus", "Sqrt", "Sub",
    "Tan", "Tanh", "Where", "Xor",
))  # fmt: skip
_REDUCTIONS = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")
_PLACED = {"Pad": 0, "Slice": 2}  # which of its further inputs says something of every axis


def cancel_transposes(
    nodes: Sequence[Any],
    arrays: MutableMapping[str, np.ndarray],
    kept: Collection[str],
    make: Callable[..., Any],
) -> list[Any]:
    """The nodes with fewer transposes, or as they are; arrays in another order are added.

    Args:
        nodes: in order; they are left as they are.
        arrays: by name.
        kept: names that others have: of inputs and outputs.
        make: `(operation, inputs, outputs, **attributes)`, a node.
    """
    found = _read(_Layout(arrays, kept, make).run(nodes), kept)
    return found if _transposes(found) < _transposes(nodes) else list(nodes)


def permutation(node: Any) -> list[int]:
    """The order of axes that a transpose gives."""
    return list(next(a.ints for a in node.attribute if a.name == "perm"))


def unused(name: str, taken: Collection[str]) -> str:
    """That name, or a longer one."""
    while name in taken:
        name += "_"
    return name


def used_names(nodes: Sequence[Any]) -> Iterator[str]:
    """The names that nodes read, those inside of them, too."""
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from used_names(attribute.g.node)
                yield from (own.name for own in attribute.g.output)


def _read(nodes: Sequence[Any], kept: Collection[str]) -> list[Any]:
    """The nodes whose results others read."""
    used, found = set(kept), []
    for node in reversed(nodes):
        if used.intersection(node.output):
            used.update(used_names([node]))
            found.append(node)
    return found[::-1]


def _transposes(nodes: Sequence[Any]) -> int:
    return sum(node.op_type == "Transpose" for node in nodes)


class _Layout:
    """Transposes are written where their results are needed: until then they are `_late`."""

    def __init__(
        self,
        arrays: MutableMapping[str, np.ndarray],
        kept: Collection[str],
        make: Callable[..., Any],
    ) -> None:
        self._arrays, self._kept, self._make = arrays, kept, make
        self._late: dict[str, tuple[str, list[int]]] = {}  # name: what it is a transpose of
        self._there: set[str] = set()  # those that were needed
        self._makers: dict[str, Any] = {}
        self._found: list[Any] = []

    def run(self, nodes: Sequence[Any]) -> list[Any]:
        for node in nodes:
            if node.op_type == "Transpose":
                base, order = self._late.get(node.input[0], (node.input[0], None))
                own = permutation(node)
                self._late[node.output[0]] = base, [order[k] for k in own] if order else own
            elif not self._moved(node):
                own = type(node).FromString(node.SerializeToString())
                own.ClearField("input")
                own.input.extend(map(self._direct, node.input))
                for name in used_names([own]):
                    self._need(name)
                self._makers.update(dict.fromkeys(own.output, own))
                self._found.append(own)
        return self._found

    def _direct(self, name: str) -> str:
        """What is the same in front of transposes that cancel."""
        base, order = self._late.get(name, (name, []))
        return base if order == sorted(order) else name

    def _need(self, name: str) -> None:
        if name in self._late and name not in self._there:
            self._there.add(name)
            base, order = self._late[name]
            small = self._small(base, [int(k) for k in np.argsort(order)])
            base, order = (small, []) if small else (base, order)
            known = {"perm": order} if order != sorted(order) else {}
            op = "Transpose" if known else "Identity"
            self._found.append(self._make(op, [base], [name], name=f"{op} to {name}", **known))

    def _moved(self, node: Any) -> bool:
        """Whether it was written in front of the transposes of what it takes."""
        orders = [self._late[name][1] for name in node.input if name in self._late]
        if not orders or any(own != orders[0] for own in orders) or len(node.output) != 1:
            return False
        order, op = orders[0], node.op_type
        if op in _EACH or op == "Concat":
            late = any(name in self._late and name not in self._there for name in node.input)
            inputs = [self._base(name, order, late) for name in node.input]
            axis = order[_attribute(node, "axis", 0)] if op == "Concat" else 0
            changed = {"axis": axis} if op == "Concat" else {}
            known = [own for own in inputs if own is not None]
            return len(known) == len(inputs) and self._write(node, known, changed, order)
        if op in _REDUCTIONS or op in _PLACED:
            return self._placed(node, order)
        return False

    def _placed(self, node: Any, order: list[int]) -> bool:
        """What names axes, in one of its further inputs."""
        name, *rest = node.input
        known = [self._arrays.get(own) for own in rest]
        place = _PLACED.get(node.op_type, 0)
        axes = known[place] if place < len(known) else None
        if name not in self._late or axes is None:
            return False
        after = order
        if node.op_type == "Pad":
            if len(rest) > 2 or axes.size != 2 * len(order):
                return False
            own = axes.reshape(2, -1)[:, np.argsort(order)].reshape(-1)
        else:
            own = np.asarray([order[k] for k in axes], axes.dtype)
        if node.op_type in _REDUCTIONS:
            gone = {int(k) % len(order) for k in axes}
            if len(order) - 1 in gone:  # what is next to each other is added up fastest
                return False
            if not _attribute(node, "keepdims", 1):
                left = [k for place, k in enumerate(order) if place not in gone]
                after = [sorted(left).index(k) for k in left]
        rest[place] = self._new(own)
        return self._write(node, [self._late[name][0], *rest], {}, after)

    def _base(self, name: str, order: list[int], late: bool) -> str | None:
        """What stands in front of a transpose, or is as it would be there; None for others."""
        if name in self._late:
            return self._late[name][0]
        return self._constant(name, order) or (self._small(name, order) if late else None)

    def _constant(self, name: str, order: list[int]) -> str | None:
        """An array in the order that it has in front of a transpose; None if it is none."""
        value = self._arrays.get(name)
        if value is None or value.ndim > len(order):
            return None
        if value.size == 1:
            return name
        wide = value.reshape((1,) * (len(order) - value.ndim) + value.shape)
        return self._new(wide.transpose(np.argsort(order)))

    def _small(self, name: str, order: list[int]) -> str | None:
        """What has axes of size 1, as a number for each channel: with them in other places."""
        node = self._makers.get(name)
        base = unused(f"{name}_{'_'.join(map(str, order))}", self._kept)
        if node is None or base in self._makers:
            return node and base
        if node.op_type in _EACH:
            inputs = [self._constant(own, order) or self._small(own, order) for own in node.input]
        elif node.op_type == "Reshape":
            shape = self._arrays.get(node.input[1])
            if shape is None or shape.size != len(order) or not shape.all():
                return None
            long = [k for n, k in zip(shape, order, strict=True) if n != 1]
            if long != sorted(long):
                return None
            inputs = [node.input[0], self._new(shape[np.argsort(order)])]
        else:
            return None
        known = [own for own in inputs if own is not None]
        if len(known) < len(inputs):
            return None
        self._makers[base] = self._again(node, known, base)
        self._makers[base].name = f"{node.name} of {base}"
        return base

    def _write(
        self, node: Any, inputs: Sequence[str], changed: dict[str, Any], after: list[int]
    ) -> bool:
        (name,) = node.output
        self._late[name] = (
            self._again(node, inputs, unused(f"{name}_t", self._kept), changed).output[0],
            after,
        )
        return True

    def _again(
        self, node: Any, inputs: Sequence[str], name: str, changed: Mapping[str, Any] | None = None
    ) -> Any:
        """The same node of other inputs."""
        changed = changed or {}
        own = self._make(node.op_type, inputs, [name], name=node.name, **changed)
        own.attribute.extend(a for a in node.attribute if a.name not in changed)
        self._found.append(own)
        return own

    def _new(self, value: np.ndarray) -> str:
        name = unused(f"turned_{len(self._arrays)}", self._kept)
        self._arrays[name] = np.ascontiguousarray(value)
        return name


def _attribute(node: Any, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)
