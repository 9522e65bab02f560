"""One forward pass over a jaxpr that gives every axis of every value a term.

The result is a `Body`: the jaxpr's live equations as `Step`s, each with the terms of its operands
and results and, where it runs other jaxprs, those bodies. All later passes (roles, exactness,
costs, resizing) walk this; none of them looks at a jaxpr again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from regularizers.channels import control
from regularizers.primitives import jaxprs
from regularizers.primitives.coupling import pin_everything
from regularizers.primitives.flow import implied
from regularizers.primitives.jaxprs import JaxprEqn, Literal, Primitive, Var
from regularizers.primitives.jaxprs import primitives as p
from regularizers.primitives.record import Record
from regularizers.primitives.step import Body, Step
from regularizers.primitives.table import RECORDS
from regularizers.primitives.terms import Atom, Axes, Solver, Source


@dataclass(kw_only=True)
class Inference:
    """A solver, the records it reads, and the primitives it met that have none."""

    solver: Solver = field(default_factory=Solver)
    records: Mapping[Primitive, Record] = field(default_factory=lambda: RECORDS)
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
        source = self.solver.source = (eqn.source_info, *self.calls)
        bodies: tuple[Body, ...] = ()
        record = self.records.get(eqn.primitive)
        misread = record.misread(eqn) if record else ""
        if eqn.primitive in jaxprs.RUNS_JAXPRS:
            results, bodies = self._run(eqn, operands, source)
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
        )
        if record is None or misread or bodies:
            return step
        return replace(step, to=record.flow(step) if record.flow else implied(record, eqn))

    def _run(
        self, eqn: JaxprEqn, operands: Sequence[Axes], source: Any
    ) -> tuple[list[Axes], tuple[Body, ...]]:
        """The results and bodies of a call or control flow. One walk is enough: terms unify."""
        closed = jaxprs.bodies_of(eqn)
        bodies: dict[int, Body] = {}

        def walk(i: int, inputs: list[Axes]) -> list[Axes]:
            bodies[i] = self.run(closed[i], inputs)
            self.solver.source = source
            return list(bodies[i].outputs)

        around, self.calls = self.calls, source
        results = control.run(eqn, operands, walk, self._domain)
        self.calls = around
        return results, tuple(bodies[i] for i in range(len(closed)))

    @property
    def _domain(self) -> control.Domain[Axes]:
        solver = self.solver

        def join(a: Axes, b: Axes) -> Axes:
            for one, other in zip(a, b, strict=True):
                solver.unify(one, other)
            return a

        def entry(axes: Axes) -> Axes:
            solver.pin(axes[0], "stacks what a loop takes one by one")
            return axes[1:]

        def stack(axes: Axes, length: int) -> Axes:
            return (solver.fixed(length, "stacks the results of a loop"), *axes)

        def local(axes: Axes, shape: tuple[int, ...]) -> Axes:
            reason = "divided among devices"
            for term, n in zip(axes, shape, strict=True):
                if term.size != n:
                    solver.pin(term, reason)
            return tuple(
                term if term.size == n else solver.fixed(n, reason)
                for term, n in zip(axes, shape, strict=True)
            )

        return control.Domain(join=join, entry=entry, stack=stack, local=local)


def trips(step: Step) -> int:
    """How often a step runs its jaxprs; a `while` counts once, since nobody knows."""
    if step.primitive is p.scan_p:
        return jaxprs.scan_of(step.eqn).length
    if step.primitive is jaxprs.shard_map_p:
        return int(jaxprs.shard_map_of(step.eqn).mesh.size)
    return 1
