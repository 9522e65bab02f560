"""Where a sum over axes is divided by how many there were: the means of a function.

`jnp.mean`, `jnp.var` and every normalisation layer sum over axes and divide by a number that was
computed from the seed's shapes. One forward pass finds these divisions, so that a network that is
rebuilt at other widths can divide by its own.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from regularizers.channels import control
from regularizers.primitives import elementwise
from regularizers.primitives.jaxprs import Literal, Primitive, Var, copy_p
from regularizers.primitives.jaxprs import primitives as p
from regularizers.primitives.step import Body, Step
from regularizers.primitives.terms import Axes


@dataclass(frozen=True)
class Total:
    """A value that is a sum over these axes."""

    axes: Axes


@dataclass(frozen=True)
class Constant:
    """A value whose every element is this number."""

    number: float


Fact: TypeAlias = Total | Constant | None


@dataclass(frozen=True, kw_only=True)
class Divisor:
    """The operand of a division or product that turns a sum over `axes` into a mean.

    Attributes:
        operand: which operand of the step it is.
        axes: what was summed over; n is the product of their sizes.
        lost: degrees of freedom: it is n - lost.
        inverse: it is 1/n, a factor.
    """

    operand: int
    axes: Axes
    lost: int
    inverse: bool

    def scale(self, size: Callable[[Any], int]) -> float:
        """By what to multiply the operand where the axes measure `size(axis)`."""
        seed = math.prod(axis.size for axis in self.axes) - self.lost
        ratio = max(math.prod(map(size, self.axes)) - self.lost, 1) / seed
        return 1.0 / ratio if self.inverse else ratio


def find_means(body: Body) -> dict[int, Divisor]:
    """The divisors in `body` and all that it runs, by the `id` of their step."""
    found: dict[int, Divisor] = {}
    _walk(body, [None] * len(body.inputs), found)
    return found


def _join(a: Fact, b: Fact) -> Fact:
    return a if a == b else None


def _entry(fact: Fact) -> Fact:
    return fact


def _stack(fact: Fact, length: int) -> Fact:
    del length
    return fact


DOMAIN: control.Domain[Fact] = control.Domain(join=_join, entry=_entry, stack=_stack)


def _walk(body: Body, inputs: Sequence[Fact], found: dict[int, Divisor]) -> list[Fact]:
    env: dict[Var, Fact] = dict(zip(body.jaxpr.invars, inputs, strict=True))
    env.update((v, _constant(c)) for v, c in zip(body.jaxpr.constvars, body.consts, strict=True))

    def read(v: Var | Literal) -> Fact:
        return _constant(v.val) if isinstance(v, Literal) else env[v]

    for step in body.steps:
        facts = [read(v) for v in step.eqn.invars]
        if step.bodies:
            results = _run(step, facts, found)
        elif step.primitive in elementwise.IDENTITIES:
            results = facts
        else:
            results = [_step(step, facts, found)] + [None] * (len(step.eqn.outvars) - 1)
        env.update(zip(step.eqn.outvars, results, strict=False))
    return [read(v) for v in body.jaxpr.outvars]


def _run(step: Step, facts: Sequence[Fact], found: dict[int, Divisor]) -> list[Fact]:
    """Through a call or control flow; a loop is rehearsed until its facts have settled."""

    def walk(into: dict[int, Divisor]) -> control.Walk:
        return lambda i, inputs: _walk(step.bodies[i], inputs, into)

    return control.run(step.eqn, facts, walk(found), DOMAIN, rehearse=walk({}))


def _constant(value: Any) -> Fact:
    numeric = np.isscalar(value) or getattr(value, "shape", None) == ()
    if not numeric or isinstance(value, str | bytes):
        return None
    try:
        return Constant(float(value))
    except TypeError:  # a random key, a complex number, a traced value
        return None


def _step(step: Step, facts: Sequence[Fact], found: dict[int, Divisor]) -> Fact:
    """What is known of the result; notes a division of a sum by its count."""
    if step.primitive in MOVED:
        return facts[0]
    if step.primitive is p.reduce_sum_p:
        axes = tuple(step.operands[0][k] for k in step.eqn.params["axes"])
        return Total((*facts[0].axes, *axes) if isinstance(facts[0], Total) else axes)
    if all(isinstance(fact, Constant) for fact in facts) and step.primitive in ARITHMETIC:
        numbers = [fact.number for fact in facts if isinstance(fact, Constant)]
        try:
            return Constant(float(ARITHMETIC[step.primitive](*numbers)))
        except ArithmeticError:
            return None
    if step.primitive in (p.div_p, p.mul_p):
        _note(step, facts, found)
    return None


def _note(step: Step, facts: Sequence[Fact], found: dict[int, Divisor]) -> None:
    for k in (1,) if step.primitive is p.div_p else (0, 1):
        total, number = facts[1 - k], facts[k]
        if not (isinstance(total, Total) and isinstance(number, Constant) and number.number):
            continue
        inverse = step.primitive is p.mul_p
        count = 1.0 / number.number if inverse else number.number
        lost = math.prod(axis.size for axis in total.axes) - count
        if abs(lost - round(lost)) < 1e-5 * count and round(lost) in (0, 1):
            found.setdefault(
                id(step),
                Divisor(operand=k, axes=total.axes, lost=round(lost), inverse=inverse),
            )


MOVED: frozenset[Primitive] = frozenset({
    p.broadcast_in_dim_p, p.convert_element_type_p, copy_p, p.name_p, p.reshape_p,
    p.sharding_constraint_p, p.squeeze_p, p.stop_gradient_p, p.transpose_p,
})  # fmt: skip

ARITHMETIC: dict[Primitive, Callable[..., float]] = {
    p.add_p: operator.add,
    p.div_p: operator.truediv,
    p.max_p: max,
    p.mul_p: operator.mul,
    p.neg_p: operator.neg,
    p.sub_p: operator.sub,
}
