"""The parts of a schedule: kernels, the arrays that they hand to each other, and what is free."""

from __future__ import annotations

from dataclasses import dataclass, field

from regularizers.costs.sizes import Term
from regularizers.primitives import elementwise, indexing, jaxprs
from regularizers.primitives.axes import Axis
from regularizers.primitives.jaxprs import Primitive
from regularizers.primitives.jaxprs import primitives as p
from regularizers.primitives.step import Operation

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
