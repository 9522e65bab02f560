"""Gathers, scatters and sorting in ONNX."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax import lax

from morph.export.onnx_rules.graph import (
    Graph,
    Rule,
    Unsupported,
    computed,
    counted,
    integers,
    moved,
    reshaped,
    sliced,
)
from regularizers.primitives import jaxprs
from regularizers.primitives.jaxprs import JaxprEqn, Primitive
from regularizers.primitives.jaxprs import primitives as p

FILL, CLIP = lax.GatherScatterMode.FILL_OR_DROP, lax.GatherScatterMode.CLIP


class _Places:
    """Where the windows of a gather or scatter lie in an operand.

    The operand's axes that windows span whole come last and stay; the others become one, along
    which `flat` numbers the places: one number for each index and each element of a window.

    Attributes:
        first: the operand's axes that become one.
        last: those that stay.
        flat: int64 [*batch, *partial], the places along the one axis; moved inside where they
            are not.
        valid: bool [*batch, *1], whether the windows lie inside; "" where they are known to.
        partial: the axes of windows that span a part, in order.
    """

    def __init__(
        self, graph: Graph, operand: Sequence[Any], indices: str, batch: Sequence[Any], known: Any,
        *, sizes: Sequence[Any], index_map: Sequence[int], batched: Mapping[int, int],
    ) -> None:  # fmt: skip
        rank = len(operand)
        self.first = [
            k for k in range(rank) if k in index_map or k in batched or sizes[k] != operand[k]
        ]
        self.last = [k for k in range(rank) if k not in self.first]
        self.partial = [
            k for k in self.first if sizes[k] != 1 or (k not in index_map and k not in batched)
        ]
        self.rest = [operand[k] for k in self.last]
        self.total = math.prod(operand[k] for k in self.first) if self.first else 1
        wide = len(batch) + len(self.partial)
        flat, self.valid = "", ""
        for k in self.first:
            stride = math.prod(operand[j] for j in self.first if j > k)
            terms = []
            if k in index_map:
                at = list(index_map).index(k)
                own = _column(graph, indices, at, batch)
                size, n = sizes[k], operand[k]
                column = None if known is None else known[..., at]
                inside = (
                    isinstance(n, int)
                    and column is not None
                    and (not column.size or (column.min() >= 0 and column.max() <= n - size))
                )
                if not inside:
                    most = graph.node("Sub", graph.shape([n]), graph.shape([size]))
                    zero = integers(graph, 0)
                    fits = graph.node("And", graph.node("GreaterOrEqual", own, zero),
                                      graph.node("LessOrEqual", own, most))  # fmt: skip
                    self.valid = graph.node("And", self.valid, fits) if self.valid else fits
                    own = graph.node("Min", graph.node("Max", own, zero), most)
                terms.append(reshaped(graph, own, [*batch, *[1] * len(self.partial)]))
            elif k in batched:
                terms.append(_along(graph, operand[k], batched[k], wide))
            if k in self.partial:
                terms.append(_along(graph, sizes[k], len(batch) + self.partial.index(k), wide))
            for term in terms:
                if not isinstance(stride, int) or stride != 1:
                    term = graph.node("Mul", term, graph.shape([stride]))
                flat = graph.node("Add", flat, term) if flat else term
        self.shape = [*batch, *(sizes[k] for k in self.partial)]
        flat = flat or reshaped(graph, integers(graph, 0), [1] * wide)
        self.flat = (
            graph.node("Expand", flat, graph.shape(self.shape))
            if wide
            else reshaped(graph, flat, [])
        )
        if self.valid:
            self.valid = reshaped(graph, self.valid, [*batch, *[1] * len(self.partial)])

    def rows(self, graph: Graph, operand: str) -> str:
        """The operand, [places, *rest]."""
        turned = moved(graph, operand, [*self.first, *self.last])
        return reshaped(graph, turned, [self.total, *self.rest])


def _column(graph: Graph, indices: str, at: int, batch: Sequence[Any]) -> str:
    """One coordinate of all indices, int64 [*batch]."""
    place = graph.constant(np.asarray(at, np.int64))
    return graph.cast(graph.node("Gather", indices, place, axis=len(batch)), np.int64)


def _along(graph: Graph, n: Any, axis: int, rank: int) -> str:
    return reshaped(graph, counted(graph, n), [n if k == axis else 1 for k in range(rank)])


def _batch_axes(rank: int, windows: Sequence[int]) -> list[int]:
    return [k for k in range(rank) if k not in windows]


def _gather(graph: Graph, eqn: JaxprEqn, operand: str, indices: str) -> str:
    """Rows of the operand with some axes flattened; a single Gather where whole rows are taken."""
    numbers, mode = eqn.params["dimension_numbers"], eqn.params["mode"]
    shape, sizes = jaxprs.shape_of(eqn.invars[0]), list(eqn.params["slice_sizes"])
    batch = jaxprs.shape_of(eqn.invars[1])[:-1]
    if (part := _part(graph, eqn, operand, graph.value(indices))) is not None:
        return part
    batched = dict(
        zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True)
    )
    places = _Places(
        graph, shape, indices, batch, graph.value(indices), sizes=sizes,
        index_map=numbers.start_index_map, batched=batched,
    )  # fmt: skip
    out = jaxprs.shape_of(eqn.outvars[0])
    offsets = list(numbers.offset_dims)  # of the result, for the window's axes that are kept
    kept = [k for k in range(len(shape)) if k not in (*numbers.collapsed_slice_dims, *batched)]
    where = dict(zip(kept, offsets, strict=True))
    if len(places.first) == 1 and not places.partial:
        (axis,) = places.first  # whole rows
        found = graph.node("Gather", operand, places.flat, axis=axis)
        order_of = [*(("w", k) for k in places.last if k < axis),
                    *(("b", j) for j in range(len(batch))),
                    *(("w", k) for k in places.last if k > axis)]  # fmt: skip
    else:
        found = graph.node("Gather", places.rows(graph, operand), places.flat, axis=0)
        order_of = [*(("b", j) for j in range(len(batch))), *(("w", k) for k in places.partial),
                    *(("w", k) for k in places.last)]  # fmt: skip
    # Window axes of size 1 that are no result's axes are gone already; others come back.
    slots = _batch_axes(len(out), offsets)
    target = {slots[j]: ("b", j) for j in range(len(batch))} | {
        at: ("w", k) for k, at in where.items()
    }
    present = [target[at] for at in range(len(out)) if target[at] in order_of]
    found = moved(graph, found, [order_of.index(own) for own in present])
    if len(present) < len(out):
        found = reshaped(graph, found, out)
    if mode == FILL and places.valid:
        fill = eqn.params["fill_value"]
        fill = (
            _fill(computed(eqn.outvars[0]), jaxprs.dtype_of(eqn.outvars[0]))
            if fill is None
            else fill
        )
        valid = _spread(graph, places.valid, batch, slots, len(out))
        value = graph.constant(np.asarray(fill, computed(eqn.outvars[0])))
        found = graph.node("Where", valid, found, value)
    return found


def _part(graph: Graph, eqn: JaxprEqn, operand: str, start: np.ndarray | None) -> str | None:
    """One window at a known place, as slices are of a batch of any size; None for others."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    if start is None or start.ndim != 1:
        return None
    begins = dict(zip(numbers.start_index_map, map(int, start), strict=True))
    shape, cuts = jaxprs.shape_of(eqn.invars[0]), {}
    for k, (size, n) in enumerate(zip(sizes, shape, strict=True)):
        begin = begins.get(k, 0)
        if size == n and not begin:
            continue
        if not isinstance(n, int) or (eqn.params["mode"] == FILL and not 0 <= begin <= n - size):
            return None
        begin = min(max(begin, 0), n - size)
        cuts[k] = begin, begin + size
    if cuts:
        ends = (integers(graph, *own) for own in (*zip(*cuts.values(), strict=True), cuts))
        operand = graph.node("Slice", operand, *ends)
    gone = numbers.collapsed_slice_dims
    return graph.node("Squeeze", operand, integers(graph, *gone)) if gone else operand


def _spread(graph: Graph, name: str, batch: Sequence[Any], slots: Sequence[int], rank: int) -> str:
    """[*batch, 1, ..] as an array that broadcasts against a result."""
    shape: list[Any] = [1] * rank
    for j, at in enumerate(slots):
        shape[at] = batch[j]
    return reshaped(graph, name, shape)


def _fill(wide: np.dtype, dtype: Any) -> Any:
    """What JAX reads out of bounds."""
    if wide.kind == "f":
        return np.nan
    if np.dtype(dtype) == np.bool_:
        return 1
    limits = np.iinfo(np.dtype(dtype))
    return limits.min if np.dtype(dtype).kind == "i" else limits.max


def _scatter(reduction: str) -> Rule:
    """ScatterND on rows; what lies outside is dropped into a row that is cut off again."""

    def rule(graph: Graph, eqn: JaxprEqn, operand: str, indices: str, updates: str) -> str:
        body = eqn.params["update_jaxpr"]
        if not reduction and body is not None and body.eqns:
            raise Unsupported("a function of the numbers in their place (`.at[..].apply`)")
        numbers, mode = eqn.params["dimension_numbers"], eqn.params["mode"]
        shape, wide = jaxprs.shape_of(eqn.invars[0]), jaxprs.shape_of(eqn.invars[2])
        batch = jaxprs.shape_of(eqn.invars[1])[:-1]
        batched = dict(
            zip(numbers.operand_batching_dims, numbers.scatter_indices_batching_dims, strict=True)
        )
        windows = list(numbers.update_window_dims)
        kept = [k for k in range(len(shape)) if k not in (*numbers.inserted_window_dims, *batched)]
        sizes = [1] * len(shape)
        for k, at in zip(kept, windows, strict=True):
            sizes[k] = wide[at]
        places = _Places(
            graph, shape, indices, batch, graph.value(indices), sizes=sizes,
            index_map=numbers.scatter_dims_to_operand_dims, batched=batched,
        )  # fmt: skip
        at_of = dict(zip(kept, windows, strict=True))
        order = [
            *_batch_axes(len(wide), windows),
            *(at_of[k] for k in places.partial if k in at_of),
        ]
        order += [at_of[k] for k in places.last if k in at_of]
        order += [k for k in range(len(wide)) if k not in order]  # of size 1
        count = math.prod(places.shape)
        new = reshaped(graph, moved(graph, updates, order), [count, *places.rest])
        flat = places.flat
        rows = places.rows(graph, operand)
        drops = bool(places.valid) and mode != CLIP
        if drops:
            end = graph.shape([places.total])
            flat = graph.node("Where", places.valid, flat, end)
            spare = sliced(graph, rows, 0, 0, 1)
            rows = graph.node("Concat", rows, spare, axis=0)
        if reduction == "sub":
            new = graph.node("Neg", new)
        options = {"reduction": "add" if reduction == "sub" else reduction or "none"}
        flat = reshaped(graph, flat, [count, 1])
        found = graph.node("ScatterND", rows, flat, new, **options)
        if drops:
            found = sliced(graph, found, 0, 0, graph.shape([places.total]))
        turned = [*places.first, *places.last]
        found = reshaped(graph, found, [shape[k] for k in turned])
        return moved(graph, found, np.argsort(turned))

    return rule


def _sort(graph: Graph, eqn: JaxprEqn, *operands: str) -> list[str]:
    """By the last key, then by those in front of it: ties stay in order."""
    axis, keys = eqn.params["dimension"], operands[: eqn.params["num_keys"]]
    n, order = graph.shape([jaxprs.shape_of(eqn.invars[0])[axis]]), ""
    for key in reversed(keys):
        now = graph.node("GatherElements", key, order, axis=axis) if order else key
        found, places = graph.nodes("TopK", 2, now, n, axis=axis, largest=0)
        order = graph.node("GatherElements", order, places, axis=axis) if order else places
    others = [graph.node("GatherElements", x, order, axis=axis) for x in operands[1:]]
    return [found, *others]


def _top_k(graph: Graph, eqn: JaxprEqn, x: str) -> list[str]:
    """The largest, or of an approximation the smallest; this one is exact."""
    params, last = eqn.params, len(jaxprs.shape_of(eqn.invars[0])) - 1
    axis = int(params.get("axis", params.get("reduction_dimension", last)))
    count, largest = integers(graph, params["k"]), int(params.get("is_max_k", True))
    if not params.get("aggregate_to_topk", True):
        raise Unsupported("an approximation that is not finished")
    values, order = graph.nodes("TopK", 2, x, count, axis=axis, largest=largest)
    return [values, graph.cast(order, computed(eqn.outvars[1]))]


RULES: Mapping[Primitive, Rule] = {
    p.approx_top_k_p: _top_k,
    p.gather_p: _gather,
    p.scatter_add_p: _scatter("add"),
    p.scatter_max_p: _scatter("max"),
    p.scatter_min_p: _scatter("min"),
    p.scatter_mul_p: _scatter("mul"),
    p.scatter_p: _scatter(""),
    jaxprs.scatter_sub_p: _scatter("sub"),
    p.sort_p: _sort,
    p.top_k_p: _top_k,
}
