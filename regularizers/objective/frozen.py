"""Which parameters an optimizer leaves where they are, whatever their gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax

from regularizers.channels import control
from regularizers.channels.calls import NEEDS_VALUES, abstract, flat_paths
from regularizers.primitives import jaxprs
from regularizers.primitives.jaxprs import Literal

Reach: TypeAlias = int  # bit i: the gradient of leaf i reaches it
DOMAIN: control.Domain[Reach] = control.Domain(
    join=lambda a, b: a if a | b == a else a | b,
    entry=lambda reach: reach,
    stack=lambda reach, length: reach,
)


def frozen_paths(
    update: Callable[[Any, Any, Any], Any], gradients: Any, state: Any, params: Any
) -> frozenset[str]:
    """The paths of the parameters whose updates do not depend on their gradients.

    This is read off the optimizer's program, not tried out: a learning rate of 0, or a step that
    only accumulates, freezes nothing, `optax.set_to_zero` does.

    Args:
        update: `(gradients, state, params) -> updates`.
        gradients: of the parameters; arrays or tracers, as are the next two.
        state: of the optimizer.
        params: the parameters.
    """
    leaves, treedef = jax.tree.flatten(gradients)
    rest, rest_tree = jax.tree.flatten((state, params))

    def flat(*arrays: Any) -> list[Any]:
        own = jax.tree.unflatten(treedef, arrays[: len(leaves)])
        return jax.tree.leaves(update(own, *jax.tree.unflatten(rest_tree, arrays[len(leaves) :])))

    try:
        closed, _ = jaxprs.trace(flat, *map(_abstract, (*leaves, *rest)))
    except NEEDS_VALUES:
        return frozenset()  # it can only run on values: there is no program to read
    reached = _walk(closed, [1 << i for i in range(len(leaves))] + [0] * len(rest))
    return frozenset(
        path
        for i, (path, reach) in enumerate(zip(flat_paths(gradients)[0], reached, strict=True))
        if not reach >> i & 1
    )


def _abstract(leaf: Any) -> Any:
    return abstract(leaf) if hasattr(leaf, "dtype") else leaf


def _walk(closed: jaxprs.ClosedJaxpr, inputs: Sequence[Reach]) -> list[Reach]:
    jaxpr = closed.jaxpr
    env: dict[Any, Reach] = dict(zip(jaxpr.invars, inputs, strict=True))

    def read(v: Any) -> Reach:
        return 0 if isinstance(v, Literal) else env.get(v, 0)  # constants are reached by nothing

    for eqn in jaxpr.eqns:
        values = [read(v) for v in eqn.invars]
        if eqn.primitive in jaxprs.RUNS_JAXPRS:
            results = control.run(eqn, values, _walker(jaxprs.bodies_of(eqn)), DOMAIN)
        else:
            reach = 0
            for value in values:
                reach |= value
            results = [reach] * len(eqn.outvars)
        env.update(zip(eqn.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _walker(bodies: Sequence[jaxprs.ClosedJaxpr]) -> control.Walk:
    return lambda i, inputs: _walk(bodies[i], inputs)
