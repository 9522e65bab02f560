"""A function of any size, of its equations at a few.

Code that reads the sizes of its arrays as numbers, as `compact` does, cannot be traced for a size
without a value. Its equations at a few sizes tell the others: a number that differs between them,
such as a size of a broadcast, is taken as a sum of products of sizes (`2*batch*length + 1`), and
must be the same at further sizes, too. Where the equations themselves differ there is no such
function.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from morph.errors import ExportError
from morph.export.exported import sizes_at
from morph.export.frozen import OPENED
from morph.resize.rebuilt import REBUILT
from regularizers.channels.calls import abstract
from regularizers.primitives import jaxprs
from regularizers.primitives.jaxprs import ClosedJaxpr, JaxprEqn, Literal, Var
from regularizers.primitives.jaxprs import primitives as p

MANY = 1009  # a size that numbers in code are seldom above
_CONTROL = frozenset({p.cond_p, p.scan_p, p.while_p})


def of_any_size(fn: Callable[..., Any], known: Mapping[str, int]) -> Callable[[Any, Any], Any]:
    """`fn` by its equations at some sizes.

    Args:
        fn: `fn(variables, x)`, trees of arrays.
        known: sizes that may vary, at which `fn` can be traced; and so it must with 1 more of any
            of them, and with much more of all, or about twice as much.

    Returns:
        A function of `variables` and of `x`, some of whose sizes have these names. It raises an
        `ExportError` where there is none.
    """

    def generalized(variables: Any, x: Any) -> Any:
        structs = jax.tree.map(abstract, x)
        names = {str(n) for leaf in jax.tree.leaves(structs) for n in leaf.shape}
        sizes = {
            str(n): n for leaf in jax.tree.leaves(structs) for n in leaf.shape if str(n) in known
        }
        if not names & known.keys():
            return fn(variables, x)
        points = _Points({name: known[name] for name in sizes}, sizes)
        weights = jax.tree.map(abstract, variables)

        def trace(at: Mapping[str, int]) -> tuple[ClosedJaxpr, Any]:
            return jaxprs.trace(fn, weights, sizes_at(structs, at))

        traced = [trace(at) for at in points.near]
        for at in points.far:
            with contextlib.suppress(Exception):  # a longest sequence, say
                traced.append(trace(at))
                points.beyond = at
                break
        if points.beyond is None:
            raise ExportError(f"the function cannot be traced at sizes {points.far}")
        (tree,) = {jax.tree.structure(outputs) for _, outputs in traced}
        leaves = [*jax.tree.leaves(variables), *jax.tree.leaves(x)]
        return jax.tree.unflatten(tree, _evaluate([own for own, _ in traced], leaves, points))

    return generalized


class _Points:
    """Where a function is traced, and what numbers there say of all sizes.

    Args:
        known: the least size of each name.
        sizes: the sizes in general, by name.
    """

    def __init__(self, known: Mapping[str, int], sizes: Mapping[str, Any]) -> None:
        low = {name: max(n, 2) for name, n in known.items()}  # 1 is broadcast
        self._low = low
        self._corners = [
            frozenset(own) for k in range(len(low) + 1) for own in itertools.combinations(low, k)
        ]
        self.near = [{name: n + (name in own) for name, n in low.items()} for own in self._corners]
        self.far = [
            {name: n + 2 * k for k, (name, n) in enumerate(own.items())}
            for own in (dict.fromkeys(low, MANY), {name: 2 * n + 3 for name, n in low.items()})
        ]
        self.beyond: Mapping[str, int] | None = None  # which of them it is
        self._sizes = sizes

    def fit(self, numbers: Sequence[int]) -> Any:
        """The sum of products of sizes that is these numbers at the points.

        Raises:
            ExportError: if there is none.
        """
        *own, beyond = map(int, numbers)
        by = dict(zip(self._corners, own, strict=True))
        parts = {
            corner: sum(
                (-1) ** (len(corner) - len(less)) * n for less, n in by.items() if less <= corner
            )
            for corner in self._corners
        }  # of the products of (size - low)

        def at(sizes: Mapping[str, Any]) -> Any:
            total: Any = 0
            for corner, times in parts.items():
                if times:
                    term: Any = times
                    for name in corner:
                        term = term * (sizes[name] - self._low[name])
                    total = total + term
            return total

        if at(self.beyond or {}) != beyond:
            raise ExportError(f"no sum of products of sizes is {own} and {beyond}")
        return at(self._sizes)


def _evaluate(closed: Sequence[ClosedJaxpr], values: Sequence[Any], points: _Points) -> list[Any]:
    """Equations that are the same at all points, on values of any size."""
    own = [one.jaxpr for one in closed]
    names: list[dict[Var, int]] = [{} for _ in own]  # which value a variable is, by jaxpr
    env: list[Any] = []

    def define(variables: Sequence[Sequence[Any]], results: Sequence[Any]) -> None:
        for name, row in zip(names, variables, strict=True):
            name.update((v, len(env) + k) for k, v in enumerate(row))
        _alike(list(map(len, variables)))
        env.extend(results)

    def read(row: Sequence[Any]) -> Any:
        if isinstance(row[0], Literal):
            return _number([v.val for v in row], row[0].aval, points)
        return env[_alike([name[v] for name, v in zip(names, row, strict=True)])]

    consts = [_alike(own) for own in zip(*(one.consts for one in closed), strict=True)]
    define([one.constvars for one in own], consts)
    define([one.invars for one in own], values)
    every = [jaxprs.live_equations(one) for one in own]
    _alike(list(map(len, every)))
    for eqns in zip(*every, strict=True):
        _alike([eqn.primitive for eqn in eqns])
        operands = [read(row) for row in zip(*(eqn.invars for eqn in eqns), strict=True)]
        scope = jaxprs.scope(eqns[0])
        with jax.named_scope(scope) if scope else contextlib.nullcontext():
            results = _results(eqns, operands, points)
        define([eqn.outvars for eqn in eqns], results)
    return [read(row) for row in zip(*(one.outvars for one in own), strict=True)]


def _results(eqns: Sequence[JaxprEqn], operands: Sequence[Any], points: _Points) -> list[Any]:
    first = eqns[0]
    if first.primitive in OPENED:
        return _evaluate([jaxprs.bodies_of(eqn)[0] for eqn in eqns], operands, points)
    if first.primitive in _CONTROL:
        if first.primitive is p.scan_p:
            _alike(list(map(jaxprs.scan_of, eqns)))
        bodies = zip(*map(jaxprs.bodies_of, eqns), strict=True)
        runs = [lambda values, own=own: _evaluate(own, values, points) for own in bodies]
        return REBUILT[first.primitive](first, operands, runs)
    _alike([eqn.params.keys() for eqn in eqns])
    params = {name: [eqn.params[name] for eqn in eqns] for name in first.params}
    changes = {name: _merged(own, points) for name, own in params.items()}
    return jaxprs.rebind(first, operands, **changes)


def _merged(values: Sequence[Any], points: _Points) -> Any:
    """One parameter of all points."""
    first = values[0]
    if _same(values):
        return first
    if all(isinstance(value, int | np.integer) for value in values):
        return points.fit(values)
    many = all(isinstance(value, tuple | list) for value in values)
    if many and len(set(map(len, values))) == 1:
        parts = [_merged(own, points) for own in zip(*values, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    return _alike(values)


def _number(values: Sequence[Any], aval: Any, points: _Points) -> Any:
    """A number among the operands, e.g. what a mean divides by."""
    if _same(values):
        return values[0]
    if any(np.ndim(value) or value != int(value) for value in values):
        return _alike(values)
    return jnp.asarray(points.fit(list(map(int, values)))).astype(aval.dtype)


def _same(values: Sequence[Any]) -> bool:
    first = values[0]
    if isinstance(first, ClosedJaxpr | jaxprs.Jaxpr):
        return len(set(map(str, values))) == 1
    if isinstance(first, np.ndarray | jax.Array):
        return all(value is first or np.array_equal(value, first) for value in values[1:])
    return all(value is first or bool(value == first) for value in values[1:])


def _alike(values: Sequence[Any]) -> Any:
    """The one value.

    Raises:
        ExportError: if they differ.
    """
    if not _same(values):
        found = ", ".join(str(value)[:40] for value in values)
        raise ExportError(f"the equations differ with the sizes: {found}")
    return values[0]
