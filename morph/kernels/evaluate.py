"""Evaluates a jaxpr of which some values are factorized kernels.

The engine takes what a kernel may meet as an argument: `tensorized` contracts there, and the
search for the layers of a function (`morph.tensorize.layers`) writes down what it sees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from morph.kernels.contract import Labels
from morph.kernels.factorized import Factorized, is_factorized
from regularizers.primitives import jaxprs
from regularizers.primitives.jaxprs import JaxprEqn, Primitive
from regularizers.primitives.jaxprs import primitives as p

# The results of an equation of which some operands are factorized.
Meet: TypeAlias = Callable[[JaxprEqn, Sequence[Any]], list[Any]]


def evaluate(closed: jaxprs.ClosedJaxpr, values: Sequence[Any], meet: Meet) -> list[Any]:
    """The outputs of a jaxpr; name scopes, loops, remat and derivative rules survive.

    Args:
        closed: the jaxpr.
        values: of its inputs: arrays and factorized kernels of their shapes.
        meet: what is done where a factorized kernel is used; transposes, reshapes and casts leave
            it as it is.
    """
    env = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    env.update(zip(closed.jaxpr.invars, values, strict=True))

    def read(v: Any) -> Any:
        return v.val if isinstance(v, jaxprs.Literal) else env[v]

    eqns = jaxprs.live_equations(closed.jaxpr)
    last = {v: i for i, eqn in enumerate(eqns) for v in _variables(eqn.invars)}
    for v in _variables(closed.jaxpr.outvars):
        last[v] = len(eqns)
    for i, eqn in enumerate(eqns):
        with jax.named_scope(jaxprs.scope(eqn)):
            results = _step(eqn, [read(v) for v in eqn.invars], meet)
        env.update(zip(eqn.outvars, results, strict=True))
        for v in {*_variables(eqn.invars), *eqn.outvars}:
            if last.get(v, i) <= i:  # arrays that nobody reads any more would fill the memory
                env.pop(v, None)
    return [read(v) for v in closed.jaxpr.outvars]


def _variables(atoms: Sequence[Any]) -> list[Any]:
    return [v for v in atoms if not isinstance(v, jaxprs.Literal)]


def _step(eqn: JaxprEqn, operands: list[Any], meet: Meet) -> list[Any]:
    if not any(map(is_factorized, operands)):
        return jaxprs.rebind(eqn, operands)
    if eqn.primitive in CALLS:
        return CALLS[eqn.primitive](eqn, operands, meet)
    move = MOVES.get(eqn.primitive)
    moved = move(eqn, *operands) if move else None
    return meet(eqn, operands) if moved is None else [moved]


def dense(value: Any) -> Any:
    """An array, whatever it was."""
    return value.dense() if isinstance(value, Factorized) else value


def _broadcast(eqn: JaxprEqn, kernel: Any, *_: Any) -> Any:
    """Axes of length 1 may come in; nothing is repeated."""
    dims, shape = eqn.params["broadcast_dimensions"], eqn.params["shape"]
    kept = [shape[k] for k in dims]
    return kernel.reshape(shape) if tuple(kept) == kernel.shape and _ones(shape, dims) else None


def _ones(shape: Sequence[int], dims: Sequence[int]) -> bool:
    return all(n == 1 for k, n in enumerate(shape) if k not in dims)


def _convert(eqn: JaxprEqn, kernel: Factorized) -> Any:
    new = eqn.params["new_dtype"]
    return kernel.astype(new) if jnp.issubdtype(new, jnp.inexact) else None


def _reshape(eqn: JaxprEqn, kernel: Factorized) -> Any:
    """With `dimensions` the kernel is transposed first."""
    order = eqn.params["dimensions"]
    kernel = kernel if order is None else kernel.transpose(order)
    return kernel.reshape(eqn.params["new_sizes"])


# What leaves a kernel factorized; None where it cannot.
MOVES: Mapping[Primitive, Callable[..., Any]] = {
    p.broadcast_in_dim_p: _broadcast,
    p.convert_element_type_p: _convert,
    p.copy_p: lambda eqn, kernel: kernel,
    p.reshape_p: _reshape,
    p.rev_p: lambda eqn, kernel: kernel.flip(eqn.params["dimensions"]),
    p.squeeze_p: lambda eqn, kernel: kernel.reshape(jaxprs.shape_of(eqn.outvars[0])),
    p.transpose_p: lambda eqn, kernel: kernel.transpose(eqn.params["permutation"]),
    jaxprs.copy_p: lambda eqn, kernel: kernel,
}


def _in_place(eqn: JaxprEqn, operands: Sequence[Any], meet: Meet) -> list[Any]:
    """A call whose meaning is that of its jaxpr."""
    return evaluate(jaxprs.bodies_of(eqn)[0], operands, meet)


def _remat(eqn: JaxprEqn, operands: Sequence[Any], meet: Meet) -> list[Any]:
    """`jax.checkpoint` stays, with its policy."""
    run = jax.checkpoint(
        lambda *values: [dense(v) for v in evaluate(jaxprs.bodies_of(eqn)[0], values, meet)],
        **jaxprs.checkpoint_of(eqn),
    )
    return run(*operands)


def _scan(eqn: JaxprEqn, operands: Sequence[Any], meet: Meet) -> list[Any]:
    """A scan stays one; it takes a stack of kernels one by one."""
    own = jaxprs.scan_of(eqn)
    n, m = own.constants, own.constants + own.carry
    constants = operands[:n]
    stacks = [_scanned(value) for value in operands[m:]]

    def body(carry: Sequence[Any], entries: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        entries = [
            replace(entry, format=stack.format.without(stack.format.axes[0][0]))
            if isinstance(stack, Factorized)
            else entry
            for entry, stack in zip(entries, stacks, strict=True)
        ]
        out = evaluate(jaxprs.bodies_of(eqn)[0], [*constants, *carry, *entries], meet)
        out = list(map(dense, out))
        return out[: m - n], out[m - n :]

    carry, stacked = jax.lax.scan(
        body,
        list(map(dense, operands[n:m])),
        stacks,
        length=own.length,
        reverse=own.reverse,
        unroll=own.unroll,
    )
    return [*carry, *stacked]


def _scanned(value: Any) -> Any:
    """A stack of kernels, if the first axis of every core is that of the stack; else an array."""
    if not isinstance(value, Factorized):
        return value
    first: Labels = value.format.axes[0]
    alike = len(first) == 1 and all(own[:1] == first for own in value.format.labels)
    return value if alike else value.dense()


def _while(eqn: JaxprEqn, operands: Sequence[Any], meet: Meet) -> list[Any]:
    """A while loop stays one."""
    own = jaxprs.while_of(eqn)
    n = own.condition_constants
    m = n + own.body_constants
    condition, body = jaxprs.bodies_of(eqn)
    return jax.lax.while_loop(
        lambda carry: dense(evaluate(condition, [*operands[:n], *carry], meet)[0]),
        lambda carry: [dense(v) for v in evaluate(body, [*operands[n:m], *carry], meet)],
        list(map(dense, operands[m:])),
    )


def _cond(eqn: JaxprEqn, operands: Sequence[Any], meet: Meet) -> list[Any]:
    """Only the branch that is taken runs."""
    index, *values = operands
    branches = [
        lambda *values, body=body: [dense(v) for v in evaluate(body, values, meet)]
        for body in jaxprs.bodies_of(eqn)
    ]
    return jax.lax.switch(index, branches, *values)


# Calls that a kernel may enter; what has derivative rules or a mesh of its own takes it dense.
CALLS: Mapping[Primitive, Callable[..., list[Any]]] = {
    p.call_p: _in_place,
    p.closed_call_p: _in_place,
    jaxprs.call_hi_primitive_p: _in_place,
    p.cond_p: _cond,
    p.jit_p: _in_place,
    p.remat_p: _remat,
    p.scan_p: _scan,
    p.while_p: _while,
}
