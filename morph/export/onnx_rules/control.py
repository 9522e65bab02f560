"""Calls, loops and branches in ONNX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from morph.export.onnx_rules.graph import (
    LEAST,
    Graph,
    Rule,
    Unsupported,
    chosen,
    integers,
    reshaped,
    same,
)
from regularizers.primitives import jaxprs
from regularizers.primitives.jaxprs import JaxprEqn, Primitive
from regularizers.primitives.jaxprs import primitives as p

UNROLLED = 1024  # equations of all steps: a loop of more stays one
_INDEX = jax.ShapeDtypeStruct((), np.int64)
_TRUTH = jax.ShapeDtypeStruct((), np.bool_)


def _struct(v: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(jaxprs.shape_of(v), jaxprs.dtype_of(v))


def _called(graph: Graph, eqn: JaxprEqn, *operands: str) -> list[str]:
    return graph.run(jaxprs.bodies_of(eqn)[0], operands)


def _on_one_device(graph: Graph, eqn: JaxprEqn, *operands: str) -> list[str]:
    devices = jaxprs.shard_map_of(eqn).mesh.size
    if devices != 1:
        raise Unsupported(f"it is divided among {devices} devices")
    return graph.run(jaxprs.bodies_of(eqn)[0], operands)


def _scan(graph: Graph, eqn: JaxprEqn, *operands: str) -> list[str]:
    """Step by step where that is short; else a Loop, whose entries are gathered."""
    scan, (body,) = jaxprs.scan_of(eqn), jaxprs.bodies_of(eqn)
    first = scan.constants + scan.carry
    constants, carry = operands[: scan.constants], list(operands[scan.constants : first])
    entries = operands[first:]
    if not isinstance(scan.length, int) or scan.length * len(body.jaxpr.eqns) > UNROLLED:
        return _looped(graph, eqn, constants, carry, entries)
    rows: list[list[str]] = []
    order = range(scan.length)[::-1] if scan.reverse else range(scan.length)
    for k in order:
        at = graph.constant(np.asarray(k, np.int64))
        own = [graph.node("Gather", x, at, axis=0) for x in entries]
        results = graph.run(body, [*constants, *carry, *own])
        carry = results[: scan.carry]
        rows.append([graph.node("Unsqueeze", y, integers(graph, 0)) for y in results[scan.carry :]])
    rows = rows[::-1] if scan.reverse else rows
    if rows:
        return [
            *carry,
            *(graph.node("Concat", *column, axis=0) for column in zip(*rows, strict=True)),
        ]
    empty = [np.zeros(jaxprs.shape_of(v), jaxprs.dtype_of(v)) for v in eqn.outvars[scan.carry :]]
    return [*carry, *map(graph.constant, empty)]


def _looped(
    graph: Graph,
    eqn: JaxprEqn,
    constants: Sequence[str],
    carry: Sequence[str],
    entries: Sequence[str],
) -> list[str]:
    scan, (body,) = jaxprs.scan_of(eqn), jaxprs.bodies_of(eqn)
    avals = list(map(_struct, body.jaxpr.invars[scan.constants : scan.constants + scan.carry]))
    steps = reshaped(graph, graph.shape([scan.length]), [])
    last = graph.node("Sub", steps, graph.constant(np.asarray(1, np.int64)))

    def write(inner: Graph, names: list[str]) -> list[str]:
        at, going, *carried = names
        place = inner.node("Sub", last, at) if scan.reverse else at
        own = [inner.node("Gather", x, place, axis=0) for x in entries]
        return [going, *inner.run(body, [*constants, *carried, *own])]

    results = list(map(_struct, body.jaxpr.outvars))
    written = graph.body([_INDEX, _TRUTH, *avals], write, [_TRUTH, *results])
    found = graph.nodes("Loop", len(eqn.outvars), steps, "", *carry, body=written)
    if scan.reverse:
        turn = [integers(graph, own) for own in (-1, LEAST, 0, -1)]
        found[scan.carry :] = [graph.node("Slice", y, *turn) for y in found[scan.carry :]]
    return found


def _while(graph: Graph, eqn: JaxprEqn, *operands: str) -> list[str]:
    """A Loop; of one loop per example (`vmap`) those that are at their end stay as they are."""
    loop, (condition, body) = jaxprs.while_of(eqn), jaxprs.bodies_of(eqn)
    first = loop.condition_constants
    own, constants = operands[:first], operands[first : first + loop.body_constants]
    carry = operands[first + loop.body_constants :]
    avals = list(map(_struct, eqn.outvars))
    many = list(jaxprs.shape_of(condition.jaxpr.outvars[0]))

    def goes(inner: Graph, values: Sequence[str]) -> tuple[str, str]:
        """Whether each goes on, and whether any does."""
        (each,) = inner.run(condition, [*own, *values])
        if not many:
            return each, each
        number = inner.node("ReduceMax", inner.cast(each, np.int32), keepdims=0)
        return each, inner.cast(number, np.bool_)

    def write(inner: Graph, names: list[str]) -> list[str]:
        old = names[2:]
        new = inner.run(body, [*constants, *old])
        if many:
            each, _ = goes(inner, old)
            for k, aval in enumerate(avals):
                here = reshaped(inner, each, [*many, *[1] * (len(aval.shape) - len(many))])
                new[k] = chosen(inner, here, new[k], old[k], aval)
        return [goes(inner, new)[1], *new]

    written = graph.body([_INDEX, _TRUTH, *avals], write, [_TRUTH, *avals])
    return graph.nodes("Loop", len(eqn.outvars), "", goes(graph, carry)[1], *carry, body=written)


def _cond(graph: Graph, eqn: JaxprEqn, which: str, *operands: str) -> list[str]:
    """One of several, by a number that is cut to their range."""
    branches, outputs = jaxprs.bodies_of(eqn), list(map(_struct, eqn.outvars))

    def taken(inner: Graph, k: int) -> list[str]:
        if k == len(branches) - 1:
            return inner.run(branches[k], operands)
        here = inner.node("LessOrEqual", number, inner.constant(np.asarray(k, np.int64)))
        return inner.nodes("If", len(outputs), here, then_branch=branch(inner, k, last=True),
                           else_branch=branch(inner, k + 1, last=False))  # fmt: skip

    def branch(inner: Graph, k: int, *, last: bool) -> object:
        return inner.body(
            [], lambda own, _: own.run(branches[k], operands) if last else taken(own, k), outputs
        )

    number = graph.cast(which, np.int64)
    return taken(graph, 0) if outputs else []


CALLS = (
    p.call_p, p.closed_call_p, p.custom_jvp_call_p, p.custom_vjp_call_p, p.jit_p, p.remat_p,
    jaxprs.call_hi_primitive_p, jaxprs.composite_p, jaxprs.custom_vmap_p,
)  # fmt: skip

RULES: Mapping[Primitive, Rule] = {
    **dict.fromkeys(CALLS, _called),
    **dict.fromkeys((p.pmax_p, p.pmin_p, p.psum_p, jaxprs.psum_invariant_p), same),
    p.cond_p: _cond,
    p.scan_p: _scan,
    p.while_p: _while,
    jaxprs.shard_map_p: _on_one_device,
}
