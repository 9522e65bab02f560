"""What one call runs, in order: kernels, and the arrays that they hand to each other.

A kernel is what a compiler makes one loop nest or library call of. A product or convolution, a
pooling, a reduction or a movement of data is one each. Elementwise operations join the kernel of an
elementwise operation before them, unless something else has read its result in between: that is
how XLA and TFLite fuse them, up to details that differ between compilers. What does not depend on
the inputs (weights, random numbers, and what is computed from them) is no kernel, and scalars and
views (reshapes, broadcasts) are free. A loop's kernels count as often as it runs; of a `cond`, the
dearest branch runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from regularizers.channels import control
from regularizers.channels.graph import ChannelGraph
from regularizers.channels.inference import trips
from regularizers.channels.parts import layer_name
from regularizers.costs.flops import dearest_branches, operation_name
from regularizers.costs.kernels import (
    ELEMENTWISE,
    MOVES,
    POOLINGS,
    TRANSCENDENTAL,
    VIEWS,
    Kernel,
    Schedule,
    Value,
)
from regularizers.primitives import elementwise, jaxprs, reduction
from regularizers.primitives.jaxprs import Literal, Var, shape_of
from regularizers.primitives.jaxprs import primitives as p
from regularizers.primitives.step import Body, Operation, Step
from regularizers.primitives.terms import Axes, freeze


def schedule_of(graph: ChannelGraph) -> Schedule:
    """What one call of the traced function runs."""
    walk = _Walk(
        operations=dict(zip(graph.operation_steps, graph.operations, strict=True)),
        branches=dearest_branches(graph),
        modules=_modules(graph),
    )
    variables = len(graph.variables)
    body = graph.body
    inputs = [
        _value(axes, v)
        for axes, v in zip(body.inputs[variables:], body.jaxpr.invars[variables:], strict=True)
    ]
    outputs = walk.body(body, [*[None] * variables, *inputs], count=1)
    _leave(outputs, ())
    return Schedule(
        kernels=tuple(sorted(walk.kernels, key=lambda kernel: kernel.place)),
        inputs=tuple(inputs),
        outputs=tuple(dict.fromkeys(value for value in outputs if value is not None)),
        states=tuple(walk.states),
    )


def _modules(graph: ChannelGraph) -> frozenset[str]:
    """The names of all layers, and of the blocks that they are in."""
    layers = {*graph.layers, *map(layer_name, graph.variables)}
    parts = [layer.split("/") for layer in layers]
    return frozenset("/".join(part[:end]) for part in parts for end in range(1, len(part) + 1))


def _value(axes: Axes, v: Var | Literal, scope: tuple[int, ...] = ()) -> Value:
    itemsize = getattr(jaxprs.dtype_of(v), "itemsize", 0)
    return Value(axes=tuple(map(freeze, axes)), itemsize=itemsize, scope=scope)


@dataclass(kw_only=True)
class _Walk:
    """Follows activations through a function; None stands for what is no activation."""

    operations: dict[int, Operation]
    branches: dict[int, int]
    modules: frozenset[str]
    kernels: list[Kernel] = field(default_factory=list)
    states: list[Value] = field(default_factory=list)
    place: int = 0
    scope: tuple[int, ...] = ()

    def body(self, body: Body, inputs: Sequence[Value | None], count: int) -> list[Value | None]:
        """Through a jaxpr; the values of its outputs."""
        env: dict[Var, Value | None] = dict.fromkeys(body.jaxpr.constvars)
        env.update(zip(body.jaxpr.invars, inputs, strict=True))

        def read(v: Var | Literal) -> Value | None:
            return None if isinstance(v, Literal) or _is_key(v) else env[v]

        for step in body.steps:
            self.place += 1
            values = [read(v) for v in step.eqn.invars]
            env.update(zip(step.eqn.outvars, self.step(step, values, count), strict=True))
        return [read(v) for v in body.jaxpr.outvars]

    def step(self, step: Step, values: list[Value | None], count: int) -> list[Value | None]:
        """Through one equation."""
        primitive = step.primitive
        if step.bodies:
            return self.run(step, values, count)
        read = [value for value in values if value is not None]
        if not read or primitive in elementwise.OBSERVERS:
            return [None] * len(step.results)
        if primitive in elementwise.IDENTITIES:
            return values
        if primitive in VIEWS:
            return [read[0]]
        if primitive in ELEMENTWISE:
            return [self.fuse(step, values, count)]
        return self.kernel(step, values, count)

    def run(self, step: Step, values: list[Value | None], count: int) -> list[Value | None]:
        """Through a call, a loop or a branch."""
        if step.primitive not in control.WIRING:
            return self.body(step.bodies[0], values, count)
        for value in values:
            _store(value)
        around, self.scope = self.scope, (*self.scope, id(step))
        if step.primitive is p.cond_p:
            chosen = self.branches.get(id(step), len(step.bodies) - 1)
            results = self.body(step.bodies[chosen], values[1:], count)
            _leave(results, self.scope)
        else:
            results = self.loop(step, values, count * trips(step))
        self.scope = around
        return results

    def loop(self, step: Step, values: list[Value | None], count: int) -> list[Value | None]:
        """A carry stays in the memory where it began; what is stacked gets its own."""
        eqn = step.eqn
        first, carries = 0, 0
        if step.primitive is p.scan_p:
            scan = jaxprs.scan_of(eqn)
            first, carries = scan.constants, scan.carry
        elif step.primitive is p.while_p:
            first = sum(jaxprs.while_of(eqn))
            carries = len(values) - first
        for k in range(first, first + carries):
            if values[k] is None and shape_of(eqn.invars[k]):
                values[k] = self.state(step.operands[k], eqn.invars[k])

        def walk(i: int, inputs: list[Value | None]) -> list[Value | None]:
            if step.primitive is not p.while_p:
                taken = range(first + carries, len(inputs))
                inputs = [
                    self.entry(step.bodies[i], k, value) if k in taken else value
                    for k, value in enumerate(inputs)
                ]
            outputs = self.body(step.bodies[i], inputs, count)
            _leave(outputs, self.scope)
            return outputs

        results = control.run(
            eqn,
            values,
            walk,
            control.Domain(
                join=lambda a, b: a, entry=lambda value: value, stack=lambda value, length: value
            ),
        )
        return [
            result if k < carries or result is None else self.state(axes, v)
            for k, (result, axes, v) in enumerate(
                zip(results, step.results, eqn.outvars, strict=True)
            )
        ]

    def state(self, axes: Axes, v: Var | Literal) -> Value:
        """What a loop begins with, or fills turn by turn."""
        value = _value(axes, v, self.scope[:-1])
        value.stored, value.loop = True, self.scope
        self.states.append(value)
        return value

    def entry(self, body: Body, k: int, whole: Value | None) -> Value | None:
        """What one turn of a loop, or one device, sees of an operand."""
        if whole is None:
            return None
        value = _value(body.inputs[k], body.jaxpr.invars[k], self.scope)
        value.stored, value.whole = True, whole
        return value

    def fuse(self, step: Step, values: list[Value | None], count: int) -> Value | None:
        """An elementwise operation: into the open kernels that it continues, or a new one."""
        result = _value(step.results[0], step.eqn.outvars[0], self.scope)
        if not result.axes:
            return result  # scalars are free
        read, open_kernels = [], []
        for value, axes in zip(values, step.operands, strict=True):
            if value is None or not value.axes:
                continue
            kernel = value.kernel
            if (
                kernel is not None
                and kernel.kind == "elementwise"
                and kernel.scope == self.scope
                and not any(own.stored for own in kernel.writes)
                and tuple(map(freeze, axes)) == result.axes
            ):
                open_kernels.append(kernel)
            else:
                read.append(value)
        if open_kernels:
            kernel = open_kernels[0]
            for other in dict.fromkeys(open_kernels[1:]):
                if other is not kernel:
                    self.merge(other, kernel)
            kernel.place = self.place
        else:
            kernel = self.add("elementwise", step, [], count)
        for value in read:
            if value.kernel is not kernel:
                _store(value)
                if value not in kernel.reads:
                    kernel.reads.append(value)
        if open_kernels:
            kernel.primitives.append(step.primitive.name)
        kernel.work.append((result.elements, step.primitive in TRANSCENDENTAL))
        kernel.writes.append(result)
        result.kernel = kernel
        return result

    def merge(self, kernel: Kernel, into: Kernel) -> None:
        """All that `kernel` does, `into` does."""
        into.reads += [value for value in kernel.reads if value not in into.reads]
        into.writes += kernel.writes
        into.work += kernel.work
        into.primitives += kernel.primitives
        for value in kernel.writes:
            value.kernel = into
        self.kernels.remove(kernel)

    def kernel(self, step: Step, values: list[Value | None], count: int) -> list[Value | None]:
        """An operation that is a kernel of its own."""
        primitive, params = step.primitive, step.eqn.params
        read = [value for value in values if value is not None and value.axes]
        operation = self.operations.get(id(step))
        window: tuple[int, ...] = ()
        weights = None
        if operation is not None:
            kind, window, _, _ = operation_name(operation)
            weights = values.index(None) if None in values[:2] else None
            if kind in ("dense", "product"):
                kind = "product" if weights is None else "dense"
        elif primitive in POOLINGS:
            kind, window = "pool", tuple(params["window_dimensions"])
        elif primitive in reduction.REDUCTIONS:
            kind = "reduce"
        elif primitive is p.concatenate_p:
            kind = "concatenate"
        else:
            kind = "move" if primitive in MOVES else primitive.name
        written = [
            _value(axes, v, self.scope)
            for axes, v in zip(step.results, step.eqn.outvars, strict=True)
        ]
        if all(not value.axes for value in written) and operation is None and kind != "reduce":
            return [*written]
        for value in read:
            _store(value)
        kernel = self.add(kind, step, list(dict.fromkeys(read)), count)
        kernel.operation, kernel.window, kernel.weights = operation, window, weights
        kernel.dilation = tuple(params.get("rhs_dilation", ()))
        if kind == "reduce":
            rank = len(shape_of(step.eqn.invars[0]))
            kernel.reduced = tuple(k - rank for k in reduction.reduced_axes(step.eqn))
        if operation is not None:
            kernel.layer = operation.layer
        for value in written:
            value.kernel, value.stored = kernel, True
        kernel.writes = written
        return [*written]

    def layer(self, step: Step) -> str:
        """Its scope, without the one that Flax opens for the whole model: no path has that."""
        scope = jaxprs.scope(step.eqn)
        _, _, inner = scope.partition("/")
        return inner if scope not in self.modules and inner in self.modules else scope

    def add(self, kind: str, step: Step, read: list[Value], count: int) -> Kernel:
        """A new kernel, in order."""
        kernel = Kernel(
            kind=kind,
            layer=self.layer(step),
            primitives=[step.primitive.name],
            count=count,
            place=self.place,
            scope=self.scope,
            reads=read,
        )
        self.kernels.append(kernel)
        return kernel


def _is_key(v: Var) -> bool:
    """Random keys are no activations, and what is drawn from them no kernel."""
    dtype = jaxprs.dtype_of(v)
    return dtype is not None and bool(jnp.issubdtype(dtype, jax.dtypes.prng_key))


def _store(value: Value | None) -> None:
    if value is not None:
        value.stored = True


def _leave(values: Sequence[Value | None], scope: tuple[int, ...]) -> None:
    """They are the results of a loop's body, a branch, or the function."""
    for value in values:
        if value is not None:
            value.stored = True
            value.leaves.append(scope)
