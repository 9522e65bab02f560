"""One forward pass over a jaxpr that gives every axis of every value a term.

The result is a `Body`: the jaxpr's live equations as `Step`s, each with the terms of its operands
and results and, where it calls another jaxpr, that body. All later passes (roles, exactness,
costs, resizing) walk this; none of them looks at a jaxpr again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from regularizers.channels import jaxprs
from regularizers.channels.coupling import RULES
from regularizers.channels.coupling.rule import Rule, pin_everything
from regularizers.channels.jaxprs import JaxprEqn, Literal, Primitive, Var
from regularizers.channels.terms import Atom, Axes, Solver, Source


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One equation with the terms of its operands and results."""

    eqn: JaxprEqn
    operands: tuple[Axes, ...]
    results: tuple[Axes, ...]
    source: Source  # of the equation and of the calls around it
    body: Body | None = None  # of a call: the jaxpr it runs on its operands

    @property
    def primitive(self) -> Primitive:
        """The primitive; the key of every table of rules."""
        return self.eqn.primitive


@dataclass(frozen=True, kw_only=True, slots=True)
class Body:
    """A jaxpr with the terms of its inputs, constants and outputs, and its live equations."""

    jaxpr: jaxprs.Jaxpr
    consts: tuple[Any, ...]
    inputs: tuple[Axes, ...]
    const_axes: tuple[Axes, ...]
    outputs: tuple[Axes, ...]
    steps: tuple[Step, ...]


@dataclass(kw_only=True)
class Inference:
    """A solver, the rules it runs, and the primitives it met that have none."""

    solver: Solver = field(default_factory=Solver)
    rules: Mapping[Primitive, Rule] = field(default_factory=lambda: RULES)
    unknown: dict[Primitive, Source] = field(default_factory=dict)  # where it was first met
    calls: tuple[Any, ...] = ()  # the source infos of the calls around what is being inferred

    def run(self, closed: jaxprs.ClosedJaxpr, inputs: Sequence[Axes]) -> Body:
        """Infers the terms of `closed` from those of its inputs."""
        jaxpr = closed.jaxpr
        const_axes = tuple(self.fresh_axes(jaxprs.shape_of(v)) for v in jaxpr.constvars)
        env: dict[Var, Axes] = dict(zip(jaxpr.constvars, const_axes, strict=True))
        env.update(zip(jaxpr.invars, inputs, strict=True))

        def read(v: Var | Literal) -> Axes:
            return self.fresh_axes(jaxprs.shape_of(v)) if isinstance(v, Literal) else env[v]

        steps = []
        for eqn in jaxprs.live_equations(jaxpr):
            step = self._step(eqn, tuple(map(read, eqn.invars)))
            env.update(zip(eqn.outvars, step.results, strict=True))
            steps.append(step)
        return Body(
            jaxpr=jaxpr,
            consts=tuple(closed.consts),
            inputs=tuple(inputs),
            const_axes=const_axes,
            outputs=tuple(map(read, jaxpr.outvars)),
            steps=tuple(steps),
        )

    def fresh_axes(self, shape: Sequence[int]) -> tuple[Atom, ...]:
        """New unknown widths for an array of `shape`."""
        return tuple(self.solver.fresh(n) for n in shape)

    def _step(self, eqn: JaxprEqn, operands: tuple[Axes, ...]) -> Step:
        around = self.calls
        source = self.solver.source = (eqn.source_info, *around)
        called = jaxprs.body_of(eqn)
        if called is not None:
            self.calls = source
            body = self.run(called, operands)
            self.calls = around
            return Step(eqn=eqn, operands=operands, results=body.outputs, source=source, body=body)
        rule = self.rules.get(eqn.primitive)
        if rule is None:
            self.unknown.setdefault(eqn.primitive, source)
            reason = f"touched by {eqn.primitive.name}, for which there is no rule"
            results = pin_everything(self.solver, eqn, *operands, reason=reason)
        else:
            results = list(rule(self.solver, eqn, *operands))
        return Step(eqn=eqn, operands=operands, results=tuple(map(tuple, results)), source=source)
