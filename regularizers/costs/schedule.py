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
from regularizers.costs.sizes import Term
from regularizers.primitives import elementwise, indexing, jaxprs, reduction
from regularizers.primitives.axes import Axis
from regularizers.primitives.jaxprs import Literal, Primitive, Var, shape_of
from regularizers.primitives.jaxprs import primitives as p
from regularizers.primitives.step import Body, Operation, Step
from regularizers.primitives.terms import Axes, freeze

# They show the same elements in another shape, or more than once.
VIEWS: frozenset[Primitive] = frozenset({
    p.bitcast_convert_type_p, p.broadcast_in_dim_p, p.name_p, p.reshape_p, p.sharding_constraint_p,
    p.squeeze_p, p.stop_gradient_p, jaxprs.copy_p, jaxprs.layout_constraint_p, jaxprs.reshard_p,
})  # fmt: skip
ELEMENTWISE: frozenset[Primitive] = (
    frozenset(elementwise.RECORDS) - elementwise.IDENTITIES - elementwise.OBSERVERS - VIEWS
)
# A polynomial or a division in hardware each: ten times the work of an addition, and more.
TRANSCENDENTAL: frozenset[Primitive] = ELEMENTWISE & {
    p.acos_p, p.acosh_p, p.asin_p, p.asinh_p, p.atan_p, p.atan2_p, p.atanh_p, p.cbrt_p, p.cos_p,
    p.cosh_p, p.digamma_p, p.erf_p, p.erf_inv_p, p.erfc_p, p.exp_p, p.exp2_p, p.expm1_p, p.lgamma_p,
    p.log_p, p.log1p_p, p.logistic_p, p.pow_p, p.sin_p, p.sinh_p, p.tan_p, p.tanh_p,
}  # fmt: skip
POOLINGS: frozenset[Primitive] = frozenset({
    p.reduce_window_p, p.reduce_window_max_p, p.reduce_window_min_p, p.reduce_window_sum_p,
    p.select_and_gather_add_p, p.select_and_scatter_add_p,
})  # fmt: skip
MOVES: frozenset[Primitive] = frozenset(indexing.RECORDS) | {
    p.pad_p, p.rev_p, p.slice_p, p.transpose_p, jaxprs.split_p, jaxprs.stack_p, jaxprs.tile_p,
    jaxprs.unstack_p,
}  # fmt: skip


@dataclass(eq=False, kw_only=True)
class Value:
    """An array of activations.

    Attributes:
        axes: what its axes are made of.
        itemsize: bytes of one element.
        scope: the loops and branches that it is made in, the outermost first.
        kernel: what computes it; None for an input, or the state of a loop.
        stored: whether it exists in memory: something but its own kernel reads it.
        leaves: the scopes that return it; it is needed to their ends.
        loop: of the state of a loop, or what it stacks: that loop's scope.
        whole: of an entry that a loop takes one by one, or a device's part: what it is taken from.
    """

    axes: tuple[Axis, ...]
    itemsize: int
    scope: tuple[int, ...] = ()
    kernel: Kernel | None = None
    stored: bool = False
    leaves: list[tuple[int, ...]] = field(default_factory=list)
    loop: tuple[int, ...] = ()
    whole: Value | None = None

    @property
    def elements(self) -> Term:
        """How many elements it has."""
        return 1.0, self.axes


@dataclass(eq=False, kw_only=True)
class Kernel:
    """One loop nest or library call.

    Attributes:
        kind: `conv`, `depthwise conv`, `grouped conv`, `transposed conv`, `dense` (with a kernel
            variable), `product` (of activations), `ragged`, `pool`, `reduce`, `elementwise`,
            `concatenate`, `move`, or the name of the primitive.
        layer: the layer it belongs to, or the block or scope.
        primitives: what it computes, in order.
        count: how often one call runs it.
        place: its position in the order of the function; of fused operations, the last one's.
        scope: the loops and branches that it stands in, the outermost first.
        reads: the activations it reads.
        writes: the activations it computes; those that are `stored` are written.
        operation: of a product or convolution.
        weights: which of its operands does not depend on the inputs; None if both do.
        window: taps of a pooling or convolution.
        work: of elementwise operations, (how many elements, whether transcendental).
        dilation: of a convolution's kernel.
        reduced: the axes that a reduction takes together, counted from the last, -1.
    """

    kind: str
    layer: str
    primitives: list[str]
    count: int
    place: int
    scope: tuple[int, ...]
    reads: list[Value]
    writes: list[Value] = field(default_factory=list)
    operation: Operation | None = None
    weights: int | None = None
    window: tuple[int, ...] = ()
    work: list[tuple[Term, bool]] = field(default_factory=list)
    dilation: tuple[int, ...] = ()
    reduced: tuple[int, ...] = ()

    @property
    def stores(self) -> list[Value]:
        """What it writes to memory."""
        return [value for value in self.writes if value.stored]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What one call runs.

    Attributes:
        kernels: in order.
        inputs: the arrays that it is given.
        outputs: the activations that it returns.
        states: the arrays that loops begin with, and those that they stack.
    """

    kernels: tuple[Kernel, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    states: tuple[Value, ...]


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
        params, eqn = step.eqn.params, step.eqn
        first, carries = 0, 0
        if step.primitive is p.scan_p:
            first, carries = params["num_consts"], params["num_carry"]
        elif step.primitive is p.while_p:
            first = params["cond_nconsts"] + params["body_nconsts"]
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
