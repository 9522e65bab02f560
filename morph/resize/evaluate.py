"""Evaluates an inferred body at new sizes; what a call means survives the resizing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from morph.resize.emission import emit
from morph.resize.lacking import Frame, Lacking
from morph.resize.rebuilt import REBUILT
from morph.resize.silence import Silence, kept_operand, zeros_of
from morph.resize.sizes import Sizes
from regularizers.channels import control
from regularizers.channels.inference import Inference
from regularizers.channels.means import Divisor, find_means
from regularizers.primitives import jaxprs
from regularizers.primitives.axes import size
from regularizers.primitives.jaxprs import Literal, Primitive, Var
from regularizers.primitives.jaxprs import primitives as p
from regularizers.primitives.step import Body, Step
from regularizers.primitives.terms import Axes, freeze


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to evaluate a body and all that it runs.

    Attributes:
        body: the inferred function.
        inference: what inferred it, and infers the derivative rules that it meets.
        sizes: the sizes to evaluate it at.
        check: is asked after any further inference.
        mean_widths: the width of every group that means over it divide by.
        means: the divisors to rescale, by step; None where all keep the seed's counts.
        lacking: what sums over shrunk groups lack; None where dead channels are zero.
        silence: what is zero for want of removed blocks; None where none was removed.
    """

    body: Body
    inference: Inference
    sizes: Sizes
    check: Callable[[], None]
    mean_widths: Mapping[str, int]
    means: dict[int, Divisor] | None = None
    lacking: Lacking | None = None
    silence: Silence | None = None

    def infer(self, closed: jaxprs.ClosedJaxpr, axes: Sequence[Axes]) -> Body:
        """A derivative rule as a body of this plan."""
        body = self.inference.run(closed, axes)
        self.check()
        if self.means is not None:
            self.means.update(find_means(body))
        return body

    def rescaled(self, step: Step, operands: list[Any]) -> list[Any]:
        """The operands of a step; the divisor of a mean fits what is summed now."""
        divisor = self.means.get(id(step)) if self.means else None
        if divisor is None:
            return operands
        scale = divisor.scale(lambda axis: int(size(freeze(axis), self.mean_widths)))
        if scale != 1.0:
            old = operands[divisor.operand]
            operands[divisor.operand] = (old * scale).astype(old.dtype)
        return operands


def evaluate(
    plan: Plan, body: Body, values: Sequence[Any], call: tuple[Step, Frame] | None = None
) -> list[Any]:
    """The outputs of `body` (a part of the plan) on resized values.

    Inputs and outputs that a removed block had are not looked at, whatever stands there.

    Args:
        plan: how to evaluate it.
        body: what to evaluate.
        values: of its inputs.
        call: the step that calls it in place, and where that stands.
    """
    silence = plan.silence
    env: dict[Var, Any] = dict(zip(body.jaxpr.invars, values, strict=True))
    frame = call[1].enter(call[0], env) if call else Frame(body=body, env=env)
    for v, const, axes in zip(body.jaxpr.constvars, body.consts, body.const_axes, strict=True):
        env[v] = plan.sizes.slice(const, axes)

    def read(v: Var | Literal, axes: Axes) -> Any:
        if isinstance(v, Literal):
            return v.val
        if silence is not None and (silence.is_zero(body, v) or v not in env):
            return zeros_of(v, plan.sizes.shape(axes))
        return env[v]

    for step in body.steps:
        if silence is not None and not silence.is_live(body, step):
            continue
        operands = [read(v, axes) for v, axes in zip(step.eqn.invars, step.operands, strict=True)]
        if step.primitive in control.IN_PLACE:
            results = evaluate(plan, step.bodies[0], operands, (step, frame))
        elif step.bodies:
            results = CALLS.get(step.primitive, called)(plan, step, operands)
        else:
            zero = [silence is not None and silence.is_zero(body, v) for v in step.eqn.invars]
            kept = kept_operand(step, zero)
            if kept is not None:
                results = [operands[kept]]
            else:
                results = emit(step, plan.rescaled(step, operands), plan.sizes)
            if step.primitive is p.reduce_sum_p and plan.lacking is not None:
                results = [sum(plan.lacking.of(step, frame), start=results[0])]
        env.update(zip(step.eqn.outvars, results, strict=True))
    return [read(v, axes) for v, axes in zip(body.jaxpr.outvars, body.outputs, strict=True)]


def called(plan: Plan, step: Step, operands: Sequence[Any]) -> list[Any]:
    """A call that stays what it is, or one whose meaning is that of its jaxpr."""
    runs = [lambda values, body=body: evaluate(plan, body, values) for body in step.bodies]
    rule = REBUILT.get(step.primitive)
    return rule(step.eqn, operands, runs) if rule else runs[0](operands)


def custom_jvp(plan: Plan, step: Step, operands: Sequence[Any]) -> list[Any]:
    """The user's derivative rule is resized like the function itself (relu'(0) stays 0)."""
    consts = operands[: jaxprs.constants_of(step.eqn)]

    @jax.custom_jvp
    def run(*primals: Any) -> list[Any]:
        return evaluate(plan, step.bodies[0], [*consts, *primals])

    @run.defjvp
    def jvp(primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        closed, zero, n = jaxprs.custom_jvp_body(step.eqn)
        axes = step.operands[n:]
        rule = plan.infer(closed, [*axes, *axes])
        results = evaluate(plan, rule, [*primals, *tangents])
        out, moving = results[: len(zero)], iter(results[len(zero) :])
        return out, [
            _zero_tangent(o) if z else next(moving) for o, z in zip(out, zero, strict=True)
        ]

    return run(*operands[len(consts) :])


def custom_vjp(plan: Plan, step: Step, operands: Sequence[Any]) -> list[Any]:
    """The user's forward and backward rules are resized like the function itself."""
    consts = operands[: jaxprs.constants_of(step.eqn)]

    @jax.custom_vjp
    def run(*primals: Any) -> list[Any]:
        return evaluate(plan, step.bodies[0], [*consts, *primals])

    def forward(*primals: Any) -> tuple[list[Any], Any]:
        fwd, _, forwarded, _, n = jaxprs.custom_vjp_bodies(step.eqn)
        rule = plan.infer(fwd, step.operands[n:])
        results = evaluate(plan, rule, primals)
        own = len(results) - len(step.results)
        return results[own:], (results[:own], [primals[f - n] for f in forwarded if f is not None])

    def backward(residuals: Any, cotangents: Sequence[Any]) -> tuple[Any, ...]:
        fwd, bwd, forwarded, returned, n = jaxprs.custom_vjp_bodies(step.eqn)
        forward_body = plan.inference.run(fwd, step.operands[n:])
        own_axes, own = iter(forward_body.outputs), iter(residuals[0])
        passed = iter(residuals[1])
        axes = [next(own_axes) if f is None else step.operands[f] for f in forwarded]
        values = [next(own) if f is None else next(passed) for f in forwarded]
        rule = plan.infer(bwd, [*axes, *step.results])
        results = iter(evaluate(plan, rule, [*values, *cotangents]))
        return tuple(next(results) if is_value else None for is_value in returned)

    run.defvjp(forward, backward)
    return run(*operands[len(consts) :])


def _zero_tangent(out: Any) -> Any:
    if jnp.issubdtype(out.dtype, jnp.inexact):
        return jnp.zeros_like(out)
    return np.zeros(out.shape, jax.dtypes.float0)


CallRule: TypeAlias = Callable[[Plan, Step, Sequence[Any]], list[Any]]

# Those with rules of their own.
CALLS: dict[Primitive, CallRule] = {
    p.custom_jvp_call_p: custom_jvp,
    p.custom_vjp_call_p: custom_vjp,
}
