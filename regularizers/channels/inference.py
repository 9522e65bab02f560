"""One forward pass over a jaxpr that gives every axis of every value a term.

The result is a `Body`: the jaxpr's live equations as `Step`s, each with the terms of its operands
and results and, where it runs other jaxprs, those bodies. All later passes (roles, exactness,
costs, resizing) walk this; none of them looks at a jaxpr again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from regularizers.channels import control
from regularizers.primitives import elementwise, jaxprs
from regularizers.primitives.coupling import pin_everything
from regularizers.primitives.facts import Fact, of_constant, results_of, unknown
from regularizers.primitives.flow import implied
from regularizers.primitives.jaxprs import JaxprEqn, Literal, Primitive, Var
from regularizers.primitives.jaxprs import primitives as p
from regularizers.primitives.record import Record
from regularizers.primitives.step import Body, Step
from regularizers.primitives.table import RECORDS
from regularizers.primitives.terms import Atom, Axes, Solver, Source


class Value(NamedTuple):
    """The terms of a value's axes, and what is known of it."""

    axes: Axes
    fact: Fact


@dataclass(kw_only=True)
class Inference:
    """A solver, the records it reads, and the primitives it met that have none."""

    solver: Solver = field(default_factory=Solver)
    records: Mapping[Primitive, Record] = field(default_factory=lambda: RECORDS)
    unknown: dict[Primitive, Source] = field(default_factory=dict)  # where it was first met
    calls: tuple[Any, ...] = ()  # the source infos of the calls around what is being inferred

    def run(
        self, closed: jaxprs.ClosedJaxpr, inputs: Sequence[Axes], facts: Sequence[Fact] = ()
    ) -> Body:
        """Infers the terms of `closed` from those of its inputs, and what is known of them."""
        jaxpr = closed.jaxpr
        known = facts or map(unknown, jaxpr.invars)
        values = [Value(tuple(axes), fact) for axes, fact in zip(inputs, known, strict=True)]
        return self._walk(closed, values)[0]

    def _walk(
        self, closed: jaxprs.ClosedJaxpr, inputs: Sequence[Value]
    ) -> tuple[Body, list[Value]]:
        jaxpr = closed.jaxpr
        const_axes = tuple(self.fresh_axes(jaxprs.shape_of(v)) for v in jaxpr.constvars)
        env: dict[Var, Value] = {
            v: Value(axes, of_constant(const))
            for v, axes, const in zip(jaxpr.constvars, const_axes, closed.consts, strict=True)
        }
        env.update(zip(jaxpr.invars, inputs, strict=True))

        def read(v: Var | Literal) -> Value:
            if isinstance(v, Literal):
                return Value(self.fresh_axes(jaxprs.shape_of(v)), of_constant(v.val))
            return env[v]

        steps = []
        for eqn in jaxprs.live_equations(jaxpr):
            step, facts = self._step(eqn, tuple(map(read, eqn.invars)))
            results = map(Value, step.results, facts)
            env.update(zip(eqn.outvars, results, strict=True))
            steps.append(step)
        outputs = list(map(read, jaxpr.outvars))
        body = Body(
            jaxpr=jaxpr,
            consts=tuple(closed.consts),
            inputs=tuple(value.axes for value in inputs),
            const_axes=const_axes,
            outputs=tuple(value.axes for value in outputs),
            steps=tuple(steps),
        )
        return body, outputs

    def fresh_axes(self, shape: Sequence[int]) -> tuple[Atom, ...]:
        """New unknown widths for an array of `shape`."""
        return tuple(self.solver.fresh(n) for n in shape)

    def _step(self, eqn: JaxprEqn, values: Sequence[Value]) -> tuple[Step, Sequence[Fact]]:
        source = self.solver.source = (eqn.source_info, *self.calls)
        operands = tuple(value.axes for value in values)
        facts = self.solver.facts = [value.fact for value in values]
        self.solver.moves = {}
        bodies: tuple[Body, ...] = ()
        record = self.records.get(eqn.primitive)
        misread = record.misread(eqn) if record else ""
        if eqn.primitive in jaxprs.RUNS_JAXPRS:
            found, bodies = self._run(eqn, values, source)
            results = [value.axes for value in found]
        elif record is None:
            self.unknown.setdefault(eqn.primitive, source)
            reason = f"touched by {eqn.primitive.name}, for which there is no rule"
            results = pin_everything(self.solver, eqn, *operands, reason=reason)
        elif misread:
            reason = f"touched by {eqn.primitive.name} with {misread}, which its rule does not read"
            results = pin_everything(self.solver, eqn, *operands, reason=reason)
        else:
            results = list(record.couple(self.solver, eqn, *operands))
        step = Step(
            eqn=eqn,
            operands=operands,
            results=tuple(map(tuple, results)),
            source=source,
            bodies=bodies,
            moves={} if bodies else self.solver.moves,
        )
        if bodies:
            return step, [value.fact for value in found]
        new = (
            facts
            if eqn.primitive in elementwise.IDENTITIES
            else results_of(eqn, record.sign if record else None, facts)
        )
        if record is None or misread:
            return step, new
        to = record.flow(step) if record.flow else implied(record, eqn, facts)
        return replace(step, to=to), new

    def _run(
        self, eqn: JaxprEqn, values: Sequence[Value], source: Any
    ) -> tuple[list[Value], tuple[Body, ...]]:
        """The results and bodies of a call or control flow. One walk is enough: terms unify."""
        closed = jaxprs.bodies_of(eqn)
        bodies: dict[int, Body] = {}

        def walk(i: int, inputs: list[Value]) -> list[Value]:
            bodies[i], outputs = self._walk(closed[i], inputs)
            self.solver.source = source
            return outputs

        changing = control.carried(eqn)
        given = [
            Value(value.axes, unknown(v)) if k in changing else value
            for k, (value, v) in enumerate(zip(values, eqn.invars, strict=True))
        ]
        around, self.calls = self.calls, source
        results = control.run(eqn, given, walk, self._domain)
        self.calls = around
        return results, tuple(bodies[i] for i in range(len(closed)))

    @property
    def _domain(self) -> control.Domain[Value]:
        solver = self.solver

        def join(a: Value, b: Value) -> Value:
            for one, other in zip(a.axes, b.axes, strict=True):
                solver.unify(one, other)
            fact = a.fact.join(b.fact)
            return a if fact is a.fact else Value(a.axes, fact)

        def entry(value: Value) -> Value:
            solver.pin(value.axes[0], "stacks what a loop takes one by one")
            return Value(value.axes[1:], Fact(value.fact.sign))

        def stack(value: Value, length: int) -> Value:
            stacked = solver.fixed(length, "stacks the results of a loop")
            return Value((stacked, *value.axes), Fact(value.fact.sign))

        def local(value: Value, shape: tuple[int, ...]) -> Value:
            reason = "divided among devices"
            for term, n in zip(value.axes, shape, strict=True):
                if term.size != n:
                    solver.pin(term, reason)
            axes = tuple(
                term if term.size == n else solver.fixed(n, reason)
                for term, n in zip(value.axes, shape, strict=True)
            )
            return Value(axes, Fact(value.fact.sign))

        return control.Domain(join=join, entry=entry, stack=stack, local=local)


def trips(step: Step) -> int:
    """How often a step runs its jaxprs; a `while` counts once, since nobody knows."""
    if step.primitive is p.scan_p:
        return jaxprs.scan_of(step.eqn).length
    if step.primitive is jaxprs.shard_map_p:
        return int(jaxprs.shard_map_of(step.eqn).mesh.size)
    return 1
