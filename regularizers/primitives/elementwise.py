"""Elementwise primitives: out[i, j, ..] = f(a[i, j, ..], b[i, j, ..], ..)."""

from __future__ import annotations

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
    mulhi_p,
    optimization_barrier_p,
    psum_invariant_p,
    pvary_p,
    random_clone_p,
    reshard_p,
)
from regularizers.primitives.jaxprs import primitives as p
from regularizers.primitives.record import FREE, Record, again, reads
from regularizers.primitives.terms import Axes, Solver
from regularizers.primitives.zero import (
    ZeroRule,
    all_of,
    any_of,
    clamp,
    convert,
    first,
    integer_power,
    integer_power_pole,
    largest,
    nothing,
    pole_of,
    power,
    power_pole,
    ratio,
    select,
    smallest,
)

# f(0) = 0
ZERO_TO_ZERO: frozenset[Primitive] = frozenset({
    p.abs_p, p.asin_p, p.asinh_p, p.atan_p, p.atanh_p, p.bessel_i1e_p, p.cbrt_p, p.ceil_p,
    p.conj_p, copy_p, p.erf_inv_p, p.erf_p, p.expm1_p, p.floor_p,
    p.imag_p, layout_constraint_p, p.log1p_p, p.name_p, p.neg_p, p.population_count_p, p.real_p,
    p.reduce_precision_p, reshard_p, p.round_p, p.sharding_constraint_p, p.sign_p, p.sin_p,
    p.sinh_p, p.sqrt_p, p.square_p, p.stop_gradient_p, p.tan_p, p.tanh_p,
})  # fmt: skip

# f(0) != 0
ZERO_TO_OTHER: frozenset[Primitive] = frozenset({
    p.acos_p, p.acosh_p, p.bessel_i0e_p, p.clz_p, p.cos_p, p.cosh_p, p.erfc_p,
    p.exp2_p, p.exp_p, p.is_finite_p, p.logistic_p, p.not_p, random_clone_p,
})  # fmt: skip

# f(0, 0) = 0
ZEROS_TO_ZERO: frozenset[Primitive] = frozenset({
    p.add_p, p.add_jaxvals_p, p.complex_p, p.or_p, p.sub_p, p.xor_p,
})  # fmt: skip

# f(0, y) = f(x, 0) = 0
ANY_ZERO_TO_ZERO: frozenset[Primitive] = frozenset({p.and_p, p.mul_p, mulhi_p})

# f(0, y) = 0
SHIFTS: frozenset[Primitive] = frozenset({
    p.shift_left_p, p.shift_right_arithmetic_p, p.shift_right_logical_p,
})  # fmt: skip

# Nothing is known of the result where operands are 0.
NO_ZERO: frozenset[Primitive] = frozenset({
    p.atan2_p, p.eq_p, p.eq_to_p, p.ge_p, p.gt_p, p.igamma_grad_a_p, p.igamma_p, p.igammac_p,
    p.le_p, p.le_to_p, p.lt_p, p.lt_to_p, p.ne_p, p.nextafter_p, p.polygamma_p,
    p.random_fold_in_p, p.regularized_incomplete_beta_p, p.zeta_p,
})  # fmt: skip

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


def _like(zero: ZeroRule, **parts: Any) -> Record:
    return Record(
        couple=couple,
        params=PARAMS,
        zero=zero,
        price=FREE,
        emission=again,
        flow=same,  # axes of size 1 stay, too
        **parts,
    )


# How it is computed and laid out, and what type comes out: no width depends on it.
PARAMS = reads(
    "accuracy", "concrete_mesh", "context_mesh", "dst_sharding", "exponent_bits", "input_dtype",
    "layout", "mantissa_bits", "name", "new_dtype", "out_dtype", "rounding_method", "sharding",
    "unconstrained_dims", "weak_type", "y",
)  # fmt: skip

IDENTITY = Record(
    couple=barrier,
    params=reads(
        "axes", "axis_name", "copy_semantics", "devices", "perm", "srcs", axis_index_groups=None
    ),
    zero=nothing,  # passes hand on what they know as it is
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
    zero=nothing,
    price=FREE,
    emission=again,
    flow=opaque,
)  # fmt: skip

RECORDS: dict[Primitive, Record] = {
    **dict.fromkeys(ZERO_TO_ZERO, _like(first)),
    **dict.fromkeys(ZERO_TO_OTHER, _like(nothing)),
    **dict.fromkeys((p.digamma_p, p.lgamma_p, p.log_p, p.rsqrt_p), _like(nothing, pole=pole_of(0))),
    **dict.fromkeys(ZEROS_TO_ZERO, _like(all_of)),
    **dict.fromkeys(ANY_ZERO_TO_ZERO, _like(any_of)),
    **dict.fromkeys(SHIFTS, _like(first)),
    **dict.fromkeys(NO_ZERO, _like(nothing)),
    p.div_p: _like(ratio, pole=pole_of(1)),
    p.rem_p: _like(ratio, pole=pole_of(1)),
    p.max_p: _like(largest, keeps_sign=True),
    p.min_p: _like(smallest, keeps_sign=True),
    p.convert_element_type_p: _like(convert, keeps_sign=True),
    p.integer_pow_p: _like(integer_power, pole=integer_power_pole),
    p.pow_p: _like(power, pole=power_pole, keeps_sign=True),
    p.select_n_p: _like(select),
    clamp_p: _like(clamp, keeps_sign=True),
    **dict.fromkeys(IDENTITIES, IDENTITY),
    **dict.fromkeys(OBSERVERS, OBSERVER),
}
