"""What a product is followed by, folded into it: scales and shifts per channel, as of a batch norm.

ONNX Runtime folds multiplications and additions behind convolutions itself, but no subtractions,
and sees neither through transposes; then activations are not fused, either. Only where that is the
same function: the padding of a convolution is in front of its scale.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, MutableMapping, Sequence
from typing import Any

import numpy as np

from morph.export.onnx_layout import permutation, unused, used_names

with contextlib.suppress(ModuleNotFoundError):  # `morph.export.onnx` says so
    from onnx.reference import ReferenceEvaluator

FEW = 256  # numbers of an array that is computed when the file is written
_AFFINE = ("Add", "Sub", "Mul", "Div")


def fold(
    nodes: Sequence[Any],
    arrays: MutableMapping[str, np.ndarray],
    kept: Collection[str],
    make: Callable[..., Any],
) -> list[Any]:
    """The nodes, less those that went into others; the arrays of these are added.

    Args:
        nodes: in order.
        arrays: by name.
        kept: names that others have: of inputs and outputs.
        make: `(operation, inputs, outputs, **attributes)`, a node.
    """
    return _Fold(nodes, arrays, kept, make).run()


def compute_known(
    nodes: Sequence[Any], arrays: MutableMapping[str, np.ndarray], kept: Collection[str]
) -> list[Any]:
    """The nodes, less those of small arrays that are known, whose results are added to these.

    Takes what `fold` takes.
    """
    found = []
    for node in nodes:
        given = {name: arrays.get(name) for name in node.input if name}
        known = [own for own in given.values() if own is not None and own.size <= FEW]
        plain = given and not any(own.HasField("g") for own in node.attribute)
        if plain and len(known) == len(given) and not {*node.output}.intersection(kept):
            results: Any = ReferenceEvaluator(node).run(None, given)
            if all(own.size <= FEW for own in results):
                arrays.update(zip(node.output, results, strict=True))
                continue
        found.append(node)
    return found


class _Fold:
    def __init__(
        self, nodes: Sequence[Any], arrays: MutableMapping[str, np.ndarray], kept: Collection[str],
        make: Callable[..., Any],
    ) -> None:  # fmt: skip
        self._nodes, self._arrays, self._kept, self._make = nodes, arrays, kept, make
        self._uses = Counter([*used_names(nodes), *kept])
        self._by: dict[str, Any] = {}  # what gives a name
        self._gone: list[Any] = []

    def run(self) -> list[Any]:
        found: list[Any] = []
        for node in self._nodes:
            if node.op_type in _AFFINE and (self._undoes(node) or self._folds(node)):
                continue
            own = self._activation(node)
            self._by.update(dict.fromkeys(own.output, own))
            found.append(own)
        return [node for node in found if node not in self._gone]

    def _undoes(self, node: Any) -> bool:
        """A mean of a window, which JAX writes as a sum by their number, and ONNX the other way."""
        times = self._by.get(node.input[0])
        if node.op_type != "Div" or times is None or times.op_type != "Mul":
            return False
        pool = self._by.get(times.input[0])
        if pool is None or pool.op_type != "AveragePool":
            return False
        by, number = (self._arrays.get(own.input[1]) for own in (node, times))
        once = all(self._uses[own.output[0]] == 1 for own in (times, pool))
        if not once or by is None or by.size != 1 or by != number:
            return False
        pool.output[0] = node.output[0]
        self._by[node.output[0]] = pool
        self._gone.append(times)
        return True

    def _folds(self, node: Any) -> bool:
        left, right = node.input
        turned = left in self._arrays
        value = self._arrays.get(left if turned else right)
        name = right if turned else left
        if value is None or value.dtype != np.float32 or (turned and node.op_type == "Div"):
            return False
        chain = list(self._chain(name))
        if not chain:
            return False
        last, product = chain[0], chain[-1]
        rank = product.op_type == "Conv" and self._arrays[product.input[1]].ndim
        order = permutation(last) if last.op_type == "Transpose" else None
        axis = -1 if not rank else order.index(1) if order else 1
        width = self._arrays[product.input[1]].shape[0 if rank else -1]
        vector = _per_channel(value, axis, rank or value.ndim, width)
        if vector is None:
            return False
        scale, shift = _scaled(node.op_type, vector, turned)
        if product.op_type == "Conv":
            self._into_conv(product, scale, shift)
        elif not self._into_product(last, product, scale, shift):
            return False
        last.output[0] = node.output[0]
        self._by[node.output[0]] = last
        return True

    def _chain(self, name: str) -> Iterator[Any]:
        """What gives a name, back to a product with a known kernel; nothing if others read it."""
        node, found = self._by.get(name), []
        while node is not None and self._uses[node.output[0]] == 1:
            found.append(node)
            if node.op_type in ("Conv", "MatMul") and node.input[1] in self._arrays:
                behind = {own.op_type for own in found[:-1]}
                if behind <= ({"Transpose"} if node.op_type == "Conv" else {"Add"}):
                    yield from found
                return
            ahead = node.op_type == "Transpose" or (
                node.op_type == "Add" and node.input[1] in self._arrays
            )
            node = self._by.get(node.input[0]) if ahead and len(found) == 1 else None

    def _new(self, value: np.ndarray) -> str:
        name = unused(f"folded_{len(self._arrays)}", self._kept)
        self._arrays[name] = np.ascontiguousarray(value)
        return name

    def _into_conv(self, conv: Any, scale: np.ndarray | None, shift: np.ndarray | None) -> None:
        kernel = self._arrays[conv.input[1]]
        bias = self._arrays[conv.input[2]] if len(conv.input) > 2 else np.zeros(len(kernel), "f4")
        if scale is not None:
            kernel = kernel * scale.reshape(-1, *[1] * (kernel.ndim - 1))
            bias = bias * scale
        inputs = [conv.input[0], self._new(kernel) if scale is not None else conv.input[1],
                  self._new(bias if shift is None else bias + shift)]  # fmt: skip
        del conv.input[:]
        conv.input.extend(inputs)

    def _into_product(
        self, last: Any, product: Any, scale: np.ndarray | None, shift: np.ndarray | None
    ) -> bool:
        if last is product and scale is None:
            return False  # a bias, which stands behind it anyway
        if last is product and shift is not None:
            return False
        if scale is not None:
            product.input[1] = self._new(self._arrays[product.input[1]] * scale)
        if last is not product:
            bias = self._arrays[last.input[1]] * (1 if scale is None else scale)
            last.input[1] = self._new(np.asarray(bias + (0 if shift is None else shift), "f4"))
        return True

    def _activation(self, node: Any) -> Any:
        """Relu and Clip behind a product, which ONNX Runtime fuses with it."""
        if node.op_type not in ("Max", "Min") or len(node.input) != 2:
            return node
        name, bound = node.input
        limit, before = self._arrays.get(bound), self._by.get(name)
        if limit is None or limit.ndim or limit.dtype != np.float32 or before is None:
            return node
        if node.op_type == "Max" and not limit and before.op_type in ("Conv", "Transpose", "Add"):
            return self._make("Relu", [name], list(node.output), name=node.name)
        if node.op_type == "Min" and before.op_type == "Relu" and self._uses[name] == 1:
            zero = self._new(np.zeros((), np.float32))
            return self._make("Clip", [name, zero, bound], list(node.output), name=node.name)
        return node


def _per_channel(value: np.ndarray, axis: int, rank: int, width: int) -> np.ndarray | None:
    """A value that broadcasts along one axis only, as a vector; None if it does not."""
    if value.ndim > rank:
        return None
    shape = (1,) * (rank - value.ndim) + value.shape
    others = [n for k, n in enumerate(shape) if k != axis % max(rank, 1)]
    if any(n != 1 for n in others) or value.size not in (1, width):
        return None
    return np.broadcast_to(value.reshape(-1), (width,))


def _scaled(
    op: str, vector: np.ndarray, turned: bool
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """An operation as a scale and a shift; None where it has none."""
    if op == "Mul":
        return vector, None
    if op == "Div":
        return 1 / vector, None
    if op == "Add":
        return None, vector
    return (np.full_like(vector, -1), vector) if turned else (None, -vector)
