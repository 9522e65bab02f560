"""Control flow: how what is known of operands reaches the jaxprs that an equation runs, and back.

Every analysis of this package walks a jaxpr and knows something about each value: a *domain*. What
calls, loops and branches do to it is the same for all of them and is written here once. A domain
says only how two facts join, and what becomes of a fact where a stacked array is taken apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from regularizers.primitives import jaxprs
from regularizers.primitives.jaxprs import JaxprEqn, Primitive, shape_of
from regularizers.primitives.jaxprs import primitives as p

V = TypeVar("V")
Walk: TypeAlias = Callable[[int, list[Any]], list[Any]]  # (which jaxpr, its inputs) -> its outputs


@dataclass(frozen=True, kw_only=True)
class Domain(Generic[V]):
    """What an analysis must say about its facts.

    Attributes:
        join: `join(a, b)` holds wherever `a` or `b` arrives; it is `a` itself where `b` adds
            nothing, which is how loops know that they are done.
        entry: of one entry of a value that is stacked along its first axis.
        stack: of the stack of so many values that are all alike.
        local: of the part of a value, of this shape, that one device sees; and back.
    """

    join: Callable[[V, V], V]
    entry: Callable[[V], V]
    stack: Callable[[V, int], V]
    local: Callable[[V, tuple[int, ...]], V] = lambda value, shape: value


def run(
    eqn: JaxprEqn,
    values: Sequence[V],
    walk: Walk,
    domain: Domain[V],
    rehearse: Walk | None = None,
) -> list[V]:
    """The facts about the results of an equation that runs jaxprs.

    Args:
        eqn: a call or control flow.
        values: the facts about its operands.
        walk: analyses one of its jaxprs.
        domain: joins facts.
        rehearse: walks a loop until its carry settles, where `walk` has side effects that must
            see the settled facts only. The last walk is always `walk`.
    """
    return WIRING.get(eqn.primitive, _call)(eqn, list(values), walk, domain, rehearse)


def _call(eqn: JaxprEqn, values: list[V], walk: Walk, *_: Any) -> list[V]:
    """The jaxpr runs once, on the operands."""
    return walk(0, values)


def _settle(
    carry: list[V], step: Callable[[Walk, list[V]], list[V]], walk: Walk, *rest: Any
) -> tuple[list[V], list[V]]:
    """Joins what a step of a loop makes of its carry until nothing is new.

    Returns:
        What holds of the carry at every step, and the outputs of a step on it.
    """
    domain, rehearse = rest
    while True:
        out = step(rehearse or walk, carry)
        joined = [domain.join(a, b) for a, b in zip(carry, out, strict=False)]
        done = all(a is b for a, b in zip(joined, carry, strict=True))
        carry = joined
        if done:
            return carry, step(walk, carry) if rehearse else out


def scan(eqn: JaxprEqn, values: list[V], walk: Walk, *rest: Any) -> list[V]:
    """(constants, carry, stacked) -> (carry, stacked): the carry keeps its shape.

    Reads `jaxprs.scan_of`.
    """
    domain, _ = rest
    own = jaxprs.scan_of(eqn)
    n, m = own.constants, own.carry
    constants, entries = values[:n], [domain.entry(value) for value in values[n + m :]]
    carry, out = _settle(
        values[n : n + m],
        lambda walk, carry: walk(0, [*constants, *carry, *entries]),
        walk,
        *rest,
    )
    return [*carry, *(domain.stack(value, own.length) for value in out[m:])]


def while_loop(eqn: JaxprEqn, values: list[V], walk: Walk, *rest: Any) -> list[V]:
    """(constants of the condition, of the body, carry) -> carry, which keeps its shape.

    Reads `jaxprs.while_of`.
    """
    own = jaxprs.while_of(eqn)
    n = own.condition_constants
    m = n + own.body_constants

    def step(walk: Walk, carry: list[V]) -> list[V]:
        walk(0, [*values[:n], *carry])
        return walk(1, [*values[n:m], *carry])

    return _settle(values[m:], step, walk, *rest)[0]


def cond(eqn: JaxprEqn, values: list[V], walk: Walk, *rest: Any) -> list[V]:
    """(index, operands) -> results: the results of all branches are alike."""
    domain, _ = rest
    results, *others = [walk(i, values[1:]) for i in range(len(jaxprs.bodies_of(eqn)))]
    for other in others:
        results = [domain.join(a, b) for a, b in zip(results, other, strict=True)]
    return results


def shard_map(eqn: JaxprEqn, values: list[V], walk: Walk, *rest: Any) -> list[V]:
    """Every device runs the jaxpr on its part."""
    domain, _ = rest
    (body,) = jaxprs.bodies_of(eqn)
    inputs = [
        domain.local(value, shape_of(v)) for value, v in zip(values, body.jaxpr.invars, strict=True)
    ]
    results = walk(0, inputs)
    return [domain.local(value, shape_of(v)) for value, v in zip(results, eqn.outvars, strict=True)]


def carried(eqn: JaxprEqn) -> range:
    """The operands whose values change from one round of a loop to the next."""
    if eqn.primitive is p.scan_p:
        scanned = jaxprs.scan_of(eqn)
        return range(scanned.constants, scanned.constants + scanned.carry)
    if eqn.primitive is p.while_p:
        own = jaxprs.while_of(eqn)
        return range(own.condition_constants + own.body_constants, len(eqn.invars))
    return range(0)


# Calls that mean what their jaxpr says and nothing more.
IN_PLACE = frozenset({p.call_p, p.closed_call_p, p.jit_p, jaxprs.call_hi_primitive_p})

# All other equations that run jaxprs are calls.
WIRING: dict[Primitive, Callable[..., list[Any]]] = {
    p.cond_p: cond,
    p.scan_p: scan,
    p.while_p: while_loop,
    jaxprs.shard_map_p: shard_map,
}
