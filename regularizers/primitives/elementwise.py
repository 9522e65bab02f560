"""Elementwise primitives: out[i, j, ..] = f(a[i, j, ..], b[i, j, ..], ..)."""

from __future__ import annotations

import operator
from typing import Any

from regularizers.primitives.coupling import out_shape, together
from regularizers.primitives.flow import opaque, same
from regularizers.primitives.jaxprs import (
    JaxprEqn,
    Primitive,
    clamp_p,
    copy_p,
    debug_callback_p,
    debug_print_p,
    layout_constraint_p,
    log2_p,
    mulhi_p,
    one_minus_square_p,
    optimization_barrier_p,
    polynomial_p,
    psum_invariant_p,
    pvary_p,
    random_clone_p,
    reshard_p,
)
from regularizers.primitives.jaxprs import primitives as p
from regularizers.primitives.poles import (
    below,
    below_minus_one,
    beyond_one,
    integer_power_pole,
    inverse_cosine_pole,
    pole_of,
    power_pole,
)
from regularizers.primitives.record import FREE, Record, again, reads
from regularizers.primitives.signs import (
    ANY,
    NOT_BELOW,
    SignRule,
    added,
    all_zero,
    any_zero,
    anything,
    clamped,
    compared,
    conjunction,
    converted,
    disjunction,
    divided,
    integer_power,
    kept,
    larger,
    multiplied,
    negated,
    not_below,
    positive,
    positive_at_zero,
    power,
    remainder,
    rooted,
    rounded,
    select,
    smaller,
    squared,
    subtracted,
)
from regularizers.primitives.terms import Axes, Solver

# f(x) has the sign of x
KEEP_SIGNS: frozenset[Primitive] = frozenset({
    p.asinh_p, p.atan_p, p.bessel_i1e_p, p.cbrt_p, p.conj_p, copy_p, p.erf_p, p.expm1_p, p.imag_p,
    layout_constraint_p, p.name_p, p.real_p, p.reduce_precision_p, reshard_p,
    p.sharding_constraint_p, p.sign_p, p.sinh_p, p.stop_gradient_p, p.tanh_p,
})  # fmt: skip

SIGNS: dict[SignRule, frozenset[Primitive]] = {
    kept: KEEP_SIGNS,
    rounded: frozenset({p.ceil_p, p.floor_p, p.round_p}),
    rooted: frozenset({
        p.population_count_p, p.sin_p, p.tan_p,
        p.shift_left_p, p.shift_right_arithmetic_p, p.shift_right_logical_p,
    }),
    squared: frozenset({p.abs_p, p.square_p}),
    positive: frozenset({p.bessel_i0e_p, p.cosh_p, p.erfc_p, p.exp2_p, p.exp_p, p.logistic_p}),
    positive_at_zero(ANY): frozenset({p.cos_p, one_minus_square_p}),
    not_below: frozenset({p.clz_p, p.is_finite_p}),
    any_zero: frozenset({mulhi_p}),
    all_zero: frozenset({p.complex_p}),
    negated: frozenset({p.neg_p}),
    added: frozenset({p.add_p, p.add_jaxvals_p}),
    subtracted: frozenset({p.sub_p}),
    multiplied: frozenset({p.mul_p}),
    larger: frozenset({p.max_p}),
    smaller: frozenset({p.min_p}),
    clamped: frozenset({clamp_p}),
    converted: frozenset({p.convert_element_type_p}),
    select: frozenset({p.select_n_p}),
    conjunction: frozenset({p.and_p}),
    disjunction: frozenset({p.or_p, p.xor_p}),
    compared(operator.eq): frozenset({p.eq_p, p.eq_to_p}),
    compared(operator.ne): frozenset({p.ne_p}),
    compared(operator.lt): frozenset({p.lt_p, p.lt_to_p}),
    compared(operator.le): frozenset({p.le_p, p.le_to_p}),
    compared(operator.gt): frozenset({p.gt_p}),
    compared(operator.ge): frozenset({p.ge_p}),
    anything: frozenset({
        p.atan2_p, p.nextafter_p, p.not_p, polynomial_p, p.random_fold_in_p, random_clone_p,
        p.regularized_incomplete_beta_p,
    }),
}  # fmt: skip

# f(0, y) = f(x, 0) = 0
ANY_ZERO_TO_ZERO: frozenset[Primitive] = frozenset({p.and_p, p.mul_p, mulhi_p})

# Any number of operands, each handed on as it is; or one like it from every device.
IDENTITIES: frozenset[Primitive] = frozenset({
    optimization_barrier_p, p.device_put_p, p.pmax_p, p.pmin_p, p.ppermute_p, p.psum_p,
    psum_invariant_p, pvary_p,
})  # fmt: skip

# They only look at their operands.
OBSERVERS: frozenset[Primitive] = frozenset({debug_callback_p, debug_print_p})


def couple(solver: Solver, eqn: JaxprEqn, *operands: Axes) -> list[Axes]:
    """out[k] ~ operand[k] for every axis k and every operand that has it at full size.

    Example: add f32[8,5] f32[1,5] ties the 5s and leaves the 1 alone.
    """
    return [together(solver, operands, out_shape(eqn))]


def barrier(solver: Solver, eqn: JaxprEqn, *operands: Axes) -> list[Axes]:
    """out_i = operand_i, each with its own axes."""
    del solver, eqn
    return list(operands)


def observe(solver: Solver, eqn: JaxprEqn, *operands: Axes) -> list[Axes]:
    """Nothing comes out, and whoever looks sees the resized values."""
    del solver, eqn, operands
    return []


def _like(sign: SignRule, **parts: Any) -> Record:
    return Record(
        couple=couple,
        params=PARAMS,
        sign=sign,
        price=FREE,
        emission=again,
        flow=same,  # axes of size 1 stay, too
        **parts,
    )


# How it is computed and laid out, and what type comes out: no width depends on it.
PARAMS = reads(
    "accuracy", "concrete_mesh", "context_mesh", "dst_sharding", "exponent_bits", "input_dtype",
    "layout", "mantissa_bits", "name", "new_dtype", "out_dtype", "rounding_method", "sharding",
    "unconstrained_dims", "unroll", "weak_type", "y",
)  # fmt: skip

IDENTITY = Record(
    couple=barrier,
    params=reads(
        "axes", "axis_name", "copy_semantics", "devices", "perm", "srcs", axis_index_groups=None
    ),
    sign=anything,  # passes hand on what they know as it is
    price=FREE,
    emission=again,
    flow=same,
)

OBSERVER = Record(
    couple=observe,
    params=reads(
        "callback", "effect", "fmt", "has_placeholders", "in_tree", "logging_record",
        "np_printoptions", "ordered", "partitioned", "static_args",
    ),
    sign=anything,
    price=FREE,
    emission=again,
    flow=opaque,
)  # fmt: skip

RECORDS: dict[Primitive, Record] = {
    **{own: _like(sign) for sign, primitives in SIGNS.items() for own in primitives},
    **dict.fromkeys((p.digamma_p, p.lgamma_p), _like(anything, pole=pole_of(0))),
    **dict.fromkeys((p.log_p, log2_p), _like(anything, pole=below(0, pole_of(0)))),
    **dict.fromkeys((p.polygamma_p, p.zeta_p), _like(anything, pole=pole_of(1))),
    **dict.fromkeys((p.igamma_grad_a_p, p.igamma_p, p.igammac_p), _like(anything, pole=pole_of(0))),
    **dict.fromkeys((p.asin_p, p.atanh_p, p.erf_inv_p), _like(kept, pole=beyond_one)),
    p.acos_p: _like(positive_at_zero(NOT_BELOW), pole=beyond_one),
    p.log1p_p: _like(kept, pole=below_minus_one),
    p.rsqrt_p: _like(positive, pole=below(0, pole_of(0))),
    p.sqrt_p: _like(kept, pole=below(0)),
    p.acosh_p: _like(not_below, pole=inverse_cosine_pole),
    p.div_p: _like(divided, pole=pole_of(1)),
    p.rem_p: _like(remainder, pole=pole_of(1)),
    p.integer_pow_p: _like(integer_power, pole=integer_power_pole),
    p.pow_p: _like(power, pole=power_pole),
    **dict.fromkeys(IDENTITIES, IDENTITY),
    **dict.fromkeys(OBSERVERS, OBSERVER),
}
