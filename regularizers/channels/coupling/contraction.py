"""Matrix products and convolutions."""

from __future__ import annotations

from regularizers.channels.coupling.rule import Rule, out_shape, pin_everything
from regularizers.channels.jaxprs import JaxprEqn, Primitive, ragged_dot_general_p
from regularizers.channels.jaxprs import primitives as p
from regularizers.channels.terms import Axes, Solver, Term, merge


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


RULES: dict[Primitive, Rule] = {
    p.conv_general_dilated_p: conv_general_dilated,
    p.dot_general_p: dot_general,
    ragged_dot_general_p: ragged_dot_general,
}
