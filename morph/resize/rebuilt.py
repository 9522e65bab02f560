"""Calls and control flow again, around other bodies: what a call means survives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax

from regularizers.primitives import jaxprs
from regularizers.primitives.jaxprs import JaxprEqn, Primitive
from regularizers.primitives.jaxprs import primitives as p

# A jaxpr that an equation runs, as a function from values to values.
Run: TypeAlias = Callable[[Sequence[Any]], list[Any]]
Rule: TypeAlias = Callable[[JaxprEqn, Sequence[Any], Sequence[Run]], list[Any]]


def _remat(eqn: JaxprEqn, operands: Sequence[Any], runs: Sequence[Run]) -> list[Any]:
    """`jax.checkpoint` stays `jax.checkpoint`, with its policy."""
    run = jax.checkpoint(lambda *values: runs[0](values), **jaxprs.checkpoint_of(eqn))
    return run(*operands)


def _scan(eqn: JaxprEqn, operands: Sequence[Any], runs: Sequence[Run]) -> list[Any]:
    """A scan stays a scan, of another carry and other entries."""
    own = jaxprs.scan_of(eqn)
    n, m = own.constants, own.carry
    constants = operands[:n]

    def body(carry: Sequence[Any], entries: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        out = runs[0]([*constants, *carry, *entries])
        return out[:m], out[m:]

    carry, stacked = jax.lax.scan(
        body,
        list(operands[n : n + m]),
        list(operands[n + m :]),
        length=own.length,
        reverse=own.reverse,
        unroll=own.unroll,
    )
    return [*carry, *stacked]


def _while_loop(eqn: JaxprEqn, operands: Sequence[Any], runs: Sequence[Run]) -> list[Any]:
    """A while loop stays one."""
    own = jaxprs.while_of(eqn)
    n = own.condition_constants
    m = n + own.body_constants
    condition, body = runs
    return jax.lax.while_loop(
        lambda carry: condition([*operands[:n], *carry])[0],
        lambda carry: body([*operands[n:m], *carry]),
        list(operands[m:]),
    )


def _cond(eqn: JaxprEqn, operands: Sequence[Any], runs: Sequence[Run]) -> list[Any]:
    """Only the branch that is taken runs."""
    index, *values = operands
    branches = [lambda *values, run=run: run(values) for run in runs]
    return jax.lax.switch(index, branches, *values)


def _shard_map(eqn: JaxprEqn, operands: Sequence[Any], runs: Sequence[Run]) -> list[Any]:
    """Stays on its mesh; only axes that are not divided among devices may change."""
    own = jaxprs.shard_map_of(eqn)
    run = jax.shard_map(
        lambda *values: tuple(runs[0](values)),
        mesh=own.mesh,
        in_specs=own.in_specs,
        out_specs=own.out_specs,
        axis_names=set(own.axis_names),
        check_vma=own.check_vma,
    )
    return list(run(*operands))


# All other calls (jit and the like) are evaluated in place.
REBUILT: Mapping[Primitive, Rule] = {
    p.cond_p: _cond,
    p.remat_p: _remat,
    p.scan_p: _scan,
    p.while_p: _while_loop,
    jaxprs.shard_map_p: _shard_map,
}
