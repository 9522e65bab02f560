"""A network with its weights inside, as plain equations that every target knows.

`freeze` evaluates a function again at its weights: calls are opened, what depends on weights alone
is computed once (the scale of a batch norm, say), and what is left are equations of the input. The
targets take that instead of the user's function, so that none of them has to know Flax, `compact`
or factorized kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import numpy as np

from regularizers.primitives import jaxprs
from regularizers.primitives.jaxprs import ClosedJaxpr, JaxprEqn, Primitive
from regularizers.primitives.jaxprs import primitives as p
from regularizers.primitives.sources import source_line

# Other equations with the same results; None where they do not apply.
Rewrite: TypeAlias = Callable[..., Any]

OPENED = frozenset({
    p.call_p, p.closed_call_p, p.custom_jvp_call_p, p.custom_vjp_call_p, p.jit_p, p.remat_p,
    jaxprs.call_hi_primitive_p,
})  # fmt: skip

SMALL = 256  # numbers that are computed in any case

# Numbers from a key that is known; no target has keys.
_RANDOM = frozenset({
    p.random_bits_p, p.random_fold_in_p, p.random_gamma_p, p.random_seed_p, p.random_split_p,
    p.threefry2x32_p, jaxprs.random_clone_p, jaxprs.random_unwrap_p, jaxprs.random_wrap_p,
})  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """An equation of the input, and where it stands in the user's model.

    Attributes:
        eqn: the equation.
        operands: its operands: arrays where they are weights, shapes where they are not.
        where: the name scope and the user's line, for messages.
    """

    eqn: JaxprEqn
    operands: tuple[Any, ...]
    where: str

    def alone(self) -> tuple[Callable[..., list[Any]], list[jax.ShapeDtypeStruct]]:
        """The equation as a function of what is not a weight, and the shapes of that."""
        free = [
            i for i, value in enumerate(self.operands) if isinstance(value, jax.ShapeDtypeStruct)
        ]

        def run(*values: Any) -> list[Any]:
            given = dict(zip(free, values, strict=True))
            return jaxprs.rebind(
                self.eqn, [given.get(i, value) for i, value in enumerate(self.operands)]
            )

        return run, [self.operands[i] for i in free]


def freeze(
    fn: Callable[..., Any],
    variables: Any,
    *,
    rewrites: Mapping[Primitive, Rewrite] | None = None,
    visit: Callable[[Step], None] = lambda step: None,
) -> Callable[[Any], Any]:
    """`fn` as a function of the input alone, of few and plain equations.

    Args:
        fn: any function `fn(variables, x)` of trees of arrays.
        variables: its weights; factorized kernels stay factorized.
        rewrites: by primitive, what stands in its place: takes the equation and its operands,
            returns the result or None to leave it.
        visit: told each equation that is left, in order, when the function is called.

    Example:
        >>> run = freeze(network.predict, variables)        # doctest: +SKIP
        >>> jax.make_jaxpr(run)(x)                          # doctest: +SKIP
    """
    table = rewrites or {}

    def frozen(x: Any) -> Any:
        closed, outputs = jaxprs.trace(fn, variables, x)
        leaves = [*jax.tree.leaves(variables), *jax.tree.leaves(x)]
        results = _evaluate(closed, leaves, _Walk(rewrites=table, visit=visit), (), ())
        return jax.tree.unflatten(jax.tree.structure(outputs), results)

    return frozen


def steps(fn: Callable[..., Any], variables: Any, x: Any, **options: Any) -> list[Step]:
    """The equations that `freeze` leaves, in order.

    Args:
        fn: see `freeze`.
        variables: see `freeze`.
        x: the inputs, arrays or their shapes.
        **options: `rewrites`, see `freeze`.
    """
    found: list[Step] = []
    jax.eval_shape(freeze(fn, variables, visit=found.append, **options), x)
    return found


def one_by_one(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn`, over whose single examples `vmap` lays the batch.

    What needs the sizes of its arrays, e.g. `compact`, cannot be traced for an unknown batch, but
    for one example. That is the same function only if it does not mix examples. Every input must
    have the batch in front.
    """

    def each(variables: Any, x: Any) -> Any:
        def alone(one: Any) -> Any:
            out = fn(variables, jax.tree.map(lambda leaf: leaf[None], one))
            return jax.tree.map(lambda leaf: leaf[0], out)

        return jax.vmap(alone)(x)

    return each


def culprit(found: Sequence[Step], can: Callable[[Step], str]) -> tuple[Step, str] | None:
    """The first equation that a target refuses when it is given that alone, and what it says.

    Args:
        found: the equations, see `steps`.
        can: asks the target; returns why it refuses, or "".
    """
    asked: dict[str, str] = {}
    for step in found:
        key = f"{step.eqn.primitive} {step.eqn.params} {[v.aval for v in step.eqn.invars]}"
        if key not in asked:
            asked[key] = can(step)
        if asked[key]:
            return step, asked[key]
    return None


@dataclass(frozen=True, kw_only=True)
class _Walk:
    """What is done with the equations that depend on the input."""

    rewrites: Mapping[Primitive, Rewrite]
    visit: Callable[[Step], None]


def _evaluate(
    closed: ClosedJaxpr,
    values: Sequence[Any],
    walk: _Walk,
    scopes: tuple[str, ...],
    sources: tuple[Any, ...],
) -> list[Any]:
    env = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    env.update(zip(closed.jaxpr.invars, values, strict=True))

    def read(v: Any) -> Any:
        return v.val if isinstance(v, jaxprs.Literal) else env[v]

    for eqn in jaxprs.live_equations(closed.jaxpr):
        operands = [read(v) for v in eqn.invars]
        inner = (*scopes, jaxprs.scope(eqn)), (eqn.source_info, *sources)
        if eqn.primitive in OPENED:
            results = _evaluate(jaxprs.bodies_of(eqn)[0], operands, walk, *inner)
        elif not any(map(_is_free, operands)) and _folds(eqn):
            with jax.ensure_compile_time_eval():
                results = jaxprs.rebind(eqn, operands)
        else:
            results = _step(eqn, operands, walk, *inner)
        env.update(zip(eqn.outvars, results, strict=True))
    return [read(v) for v in closed.jaxpr.outvars]


def _step(
    eqn: JaxprEqn,
    operands: Sequence[Any],
    walk: _Walk,
    scopes: Sequence[str],
    sources: Sequence[Any],
) -> list[Any]:
    rewrite = walk.rewrites.get(eqn.primitive)
    result = rewrite(eqn, *operands) if rewrite else None
    if result is not None:
        return [result]
    scope, line = "/".join(filter(None, scopes)), source_line(sources)
    where = " ".join(filter(None, (scope, f"[{line}]" * bool(line))))
    shown = tuple(_struct(value) if _is_free(value) else value for value in operands)
    walk.visit(Step(eqn=eqn, operands=shown, where=where))
    with jax.named_scope(where or "fn"):  # so that what is made of it can be told
        return jaxprs.rebind(eqn, operands)


def _is_free(value: Any) -> bool:
    """Whether it depends on the input."""
    return isinstance(value, jax.core.Tracer)


def _folds(eqn: JaxprEqn) -> bool:
    """Whether its results take no more room than its operands; large broadcasts stay equations."""
    if eqn.primitive in _RANDOM:
        return True
    if eqn.primitive is jaxprs.dim_as_value_p:
        return False
    sizes = [jaxprs.shape_of(v) for v in eqn.outvars]
    if not all(isinstance(n, int) for shape in sizes for n in shape):
        return False  # a batch of any size
    room = sum(int(np.prod(jaxprs.shape_of(v))) for v in eqn.invars)
    return sum(int(np.prod(shape)) for shape in sizes) <= max(room, SMALL)


def _struct(value: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(value.shape, value.dtype)
