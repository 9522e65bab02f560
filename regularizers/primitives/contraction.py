"""Matrix products and convolutions."""

from __future__ import annotations

from typing import Any, TypeAlias

from regularizers.primitives.axes import Axis, make_product
from regularizers.primitives.coupling import out_shape, pin_everything
from regularizers.primitives.jaxprs import (
    JaxprEqn,
    Primitive,
    ragged_dot_general_p,
    symmetric_product_p,
)
from regularizers.primitives.jaxprs import primitives as p
from regularizers.primitives.record import Factors, Price, Record, Sizes, again, reads
from regularizers.primitives.signs import (
    Meeting,
    Sign,
    all_zero,
    contracted,
    contracted_in_part,
    rooted,
)
from regularizers.primitives.step import Operation, Step
from regularizers.primitives.terms import Axes, Solver, Term, merge


def dot_general(solver: Solver, eqn: JaxprEqn, lhs: Axes, rhs: Axes) -> list[Axes]:
    """out = (batch axes, free axes of lhs, free axes of rhs); contracted axes are the same.

    Example: [N, I] . [I, O] -> [N, O] ties the I's. Reads `dimension_numbers`.
    """
    (lhs_sum, rhs_sum), (lhs_batch, rhs_batch) = eqn.params["dimension_numbers"]
    for i, j in zip((*lhs_sum, *lhs_batch), (*rhs_sum, *rhs_batch), strict=True):
        solver.unify(lhs[i], rhs[j])
    free = [t for k, t in enumerate(lhs) if k not in lhs_sum and k not in lhs_batch]
    free += [t for k, t in enumerate(rhs) if k not in rhs_sum and k not in rhs_batch]
    return [(*(lhs[k] for k in lhs_batch), *free)]


def conv_general_dilated(solver: Solver, eqn: JaxprEqn, lhs: Axes, rhs: Axes) -> list[Axes]:
    """With G feature groups: lhs C = G x i, kernel I = i, kernel O = G x m, out C ~ kernel O.

    G = 1 ties C to I; depthwise (i = 1, m = 1) ties C to O; otherwise whole groups, and the
    channels within every group alike, are widths. Spatial axes are pinned.
    Reads `dimension_numbers`, `feature_group_count`, `batch_group_count`.
    """
    numbers = eqn.params["dimension_numbers"]
    lhs_batch, lhs_feature, *lhs_spatial = numbers.lhs_spec
    rhs_out, rhs_in, *rhs_spatial = numbers.rhs_spec
    if eqn.params["batch_group_count"] != 1:
        return pin_everything(solver, eqn, lhs, rhs, reason="convolution grouped over the batch")
    for k in lhs_spatial:
        solver.pin(lhs[k], "spatial axis of a convolution")
    for k in rhs_spatial:
        solver.pin(rhs[k], "spatial axis of a convolution kernel")
    groups = solver.fresh(eqn.params["feature_group_count"])
    inner = solver.fresh(rhs[rhs_in].size)
    outer = solver.fresh(rhs[rhs_out].size // groups.size)
    solver.unify(rhs[rhs_in], inner)
    solver.unify(lhs[lhs_feature], merge([groups, inner]))
    solver.unify(rhs[rhs_out], merge([groups, outer]))
    out: list[Term] = [solver.fixed(n, "spatial axis of a convolution") for n in out_shape(eqn)]
    out_batch, out_feature, *_ = numbers.out_spec
    out[out_batch], out[out_feature] = lhs[lhs_batch], rhs[rhs_out]
    return [tuple(out)]


def ragged_dot_general(
    solver: Solver, eqn: JaxprEqn, lhs: Axes, rhs: Axes, group_sizes: Axes, *rest: Axes
) -> list[Axes]:
    """A product whose rhs changes along one axis of lhs: a mixture of experts.

    Example: tokens [T, I], kernels [E, I, O], tokens of each expert [E] -> [T, O] ties the I's and
    pins T and E. Reads `ragged_dot_dimension_numbers`.
    """
    numbers = eqn.params["ragged_dot_dimension_numbers"]
    (lhs_sum, rhs_sum), (lhs_batch, rhs_batch) = numbers.dot_dimension_numbers
    ragged, grouped = numbers.lhs_ragged_dimensions, numbers.rhs_group_dimensions
    reason = "divided among the kernels of a ragged product"
    for term in (*(lhs[k] for k in ragged), *(rhs[k] for k in grouped), *group_sizes):
        solver.pin(term, reason)
    for axes in rest:
        for term in axes:
            solver.pin(term, reason)
    if set(ragged) & {*lhs_sum, *lhs_batch}:  # then the kernels' number is an axis of the result
        return pin_everything(solver, eqn, lhs, rhs, reason=reason)
    for i, j in zip((*lhs_sum, *lhs_batch), (*rhs_sum, *rhs_batch), strict=True):
        solver.unify(lhs[i], rhs[j])
    free = [t for k, t in enumerate(lhs) if k not in (*lhs_sum, *lhs_batch)]
    free += [t for k, t in enumerate(rhs) if k not in (*rhs_sum, *rhs_batch, *grouped)]
    return [(*(lhs[k] for k in lhs_batch), *free)]


def dot_factors(operation: Operation) -> Factors:
    """Every output element sums over the contracted axes."""
    (lhs_sum, _), _ = operation.params["dimension_numbers"]
    return (*operation.out, *(operation.lhs[k] for k in lhs_sum))


Name: TypeAlias = tuple[str, tuple[int, ...], Axis, Axis]


def dot_name(operation: Operation) -> Name:
    """A dense layer, or a product of activations."""
    (lhs_sum, rhs_sum), (_, rhs_batch) = operation.params["dimension_numbers"]
    free = [a for k, a in enumerate(operation.rhs) if k not in (*rhs_sum, *rhs_batch)]
    kind = "dense" if operation.kernel else "product"
    return kind, (), make_product([operation.lhs[k] for k in lhs_sum]), make_product(free)


def conv_factors(operation: Operation) -> Factors:
    """Every output element sums over the kernel's window and input channels.

    Along an axis with `lhs_dilation` (a transposed convolution) only every d-th tap meets an input
    element: there the input's positions count instead of the output's.
    """
    numbers = operation.params["dimension_numbers"]
    out = list(operation.out)
    for at, source, dilation in zip(
        numbers.out_spec[2:], numbers.lhs_spec[2:], operation.params["lhs_dilation"], strict=True
    ):
        if dilation > 1:
            out[at] = operation.lhs[source]
    return (*out, *(operation.rhs[k] for k in numbers.rhs_spec[1:]))


def conv_name(operation: Operation) -> Name:
    """A convolution, by its window and its feature groups."""
    numbers = operation.params["dimension_numbers"]
    window = tuple(int(operation.rhs[k]) for k in numbers.rhs_spec[2:])
    groups = operation.params["feature_group_count"]
    into, out = operation.lhs[numbers.lhs_spec[1]], operation.out[numbers.out_spec[1]]
    if any(d > 1 for d in operation.params["lhs_dilation"]):
        kind = "transposed conv"
    elif groups == 1:
        kind = "conv"
    else:
        kind = "depthwise conv" if operation.rhs[numbers.rhs_spec[1]] == 1 else "grouped conv"
    return kind, window, into, out


def convolved(step: Step, sizes: Sizes) -> dict[str, Any]:
    """`feature_group_count` from the input's channels over the kernel's."""
    numbers = step.eqn.params["dimension_numbers"]
    lhs, rhs = step.operands
    channels = sizes.of(lhs[numbers.lhs_spec[1]])
    return {"feature_group_count": channels // max(1, sizes.of(rhs[numbers.rhs_spec[1]]))}


def ragged_factors(operation: Operation) -> Factors:
    """Every row meets one kernel."""
    numbers = operation.params["ragged_dot_dimension_numbers"]
    (lhs_sum, _), _ = numbers.dot_dimension_numbers
    return (*operation.out, *(operation.lhs[k] for k in lhs_sum))


def ragged_name(operation: Operation) -> Name:
    """A mixture of experts' layer: input and output channels of one expert."""
    numbers = operation.params["ragged_dot_dimension_numbers"]
    (lhs_sum, rhs_sum), (_, rhs_batch) = numbers.dot_dimension_numbers
    gone = (*rhs_sum, *rhs_batch, *numbers.rhs_group_dimensions)
    free = [a for k, a in enumerate(operation.rhs) if k not in gone]
    return "ragged", (), make_product([operation.lhs[k] for k in lhs_sum]), make_product(free)


def symmetric_product(solver: Solver, eqn: JaxprEqn, a: Axes, c: Axes) -> list[Axes]:
    """alpha a a^T + beta c: the last axis of a is summed away, the other makes rows and columns.

    Example: a [B, N, K], c [B, N, N] -> [B, N, N].
    """
    del eqn
    for i, j in zip((*a[:-1], a[-2]), c, strict=True):
        solver.unify(i, j)
    return [(*a[:-1], a[-2])]


def symmetric_sign(m: Meeting) -> Sign:
    """Rows that are zero in a, and in c unless beta is 0."""
    return all_zero(m) if m.eqn.params["beta"] else rooted(m)


_ARITHMETIC = ("out_sharding", "precision", "preferred_element_type")

RECORDS: dict[Primitive, Record] = {
    p.dot_general_p: Record(
        couple=dot_general,
        params=reads("dimension_numbers", *_ARITHMETIC),
        sign=contracted,
        sums=True,
        price=Price(factors=dot_factors, name=dot_name),
        emission=again,
    ),
    p.conv_general_dilated_p: Record(
        couple=conv_general_dilated,
        params=reads(
            "batch_group_count", "dimension_numbers", "feature_group_count", "lhs_dilation",
            "padding", "rhs_dilation", "window_strides", *_ARITHMETIC,
        ),
        sign=contracted_in_part,
        sums=True,
        price=Price(factors=conv_factors, name=conv_name),
        emission=convolved,
    ),
    ragged_dot_general_p: Record(
        couple=ragged_dot_general,
        params=reads("ragged_dot_dimension_numbers", *_ARITHMETIC, group_offset=None),
        sign=contracted_in_part,
        sums=True,
        price=Price(factors=ragged_factors, name=ragged_name),
        emission=again,
    ),
    symmetric_product_p: Record(
        couple=symmetric_product,
        params=reads("alpha", "beta"),
        sign=symmetric_sign,
        sums=True,
        price=Price(factors=lambda o: (*o.out, o.lhs[-1])),
        emission=again,
    ),
}  # fmt: skip
