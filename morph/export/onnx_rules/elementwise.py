"""Elementwise primitives in ONNX."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from morph.export.onnx_rules.graph import Graph, Rule, Unsupported, computed, plain, same, scalar
from regularizers.primitives import jaxprs
from regularizers.primitives.jaxprs import JaxprEqn, Primitive
from regularizers.primitives.jaxprs import primitives as p


def _rsqrt(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    return graph.node("Reciprocal", graph.node("Sqrt", x))


def _square(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    return graph.node("Mul", x, x)


def _one_minus_square(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    return graph.node("Sub", scalar(graph, eqn, 1), graph.node("Mul", x, x))


def _polynomial(graph: Graph, eqn: JaxprEqn, x: str, *coefficients: str) -> str:
    """Horner's rule; the constant comes first."""
    *others, total = coefficients
    for coefficient in reversed(others):
        total = graph.node("Add", graph.node("Mul", total, x), coefficient)
    return total


def _integer_pow(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    return graph.node("Pow", x, scalar(graph, eqn, eqn.params["y"]))


def _exp2(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    return graph.node("Pow", scalar(graph, eqn, 2), x)


def _log2(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    return graph.node("Div", graph.node("Log", x), scalar(graph, eqn, math.log(2.0)))


def _cbrt(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    root = graph.node("Pow", graph.node("Abs", x), scalar(graph, eqn, 1.0 / 3.0))
    return graph.node("Mul", graph.node("Sign", x), root)


def _erfc(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    return graph.node("Sub", scalar(graph, eqn, 1), graph.node("Erf", x))


def _log1p(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    """log(1 + x) x / ((1 + x) - 1), which rounds well near 0."""
    one = scalar(graph, eqn, 1)
    above = graph.node("Add", x, one)
    apart = graph.node("Sub", above, one)
    far = graph.node("Log", above)
    is_near = graph.node("Equal", apart, scalar(graph, eqn, 0))
    safe = graph.node("Where", is_near, one, apart)
    close = graph.node("Div", graph.node("Mul", far, x), safe)
    is_large = graph.node("Greater", graph.node("Abs", x), one)
    return graph.node("Where", is_near, x, graph.node("Where", is_large, far, close))


def _expm1(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    """2 tanh(x/2) / (1 - tanh(x/2)) near 0, where exp(x) - 1 rounds badly."""
    one, half = scalar(graph, eqn, 1), scalar(graph, eqn, 0.5)
    tanh = graph.node("Tanh", graph.node("Mul", x, half))
    near = graph.node("Div", graph.node("Add", tanh, tanh), graph.node("Sub", one, tanh))
    is_near = graph.node("Less", graph.node("Abs", x), half)
    return graph.node("Where", is_near, near, graph.node("Sub", graph.node("Exp", x), one))


def _atan2(graph: Graph, eqn: JaxprEqn, y: str, x: str) -> str:
    zero, pi = scalar(graph, eqn, 0), scalar(graph, eqn, math.pi)
    at_zero = graph.node("Equal", x, zero)
    safe = graph.node("Where", at_zero, scalar(graph, eqn, 1), x)
    right = graph.node("Atan", graph.node("Div", y, safe))
    over = graph.node("Reciprocal", y)  # of -0 below zero, too
    below = graph.node("Or", graph.node("Less", y, zero), graph.node("Less", over, zero))
    turn = graph.node("Where", below, graph.node("Neg", pi), pi)
    left = graph.node("Add", right, turn)
    off = graph.node("Where", graph.node("Less", x, zero), left, right)
    upright = graph.node("Mul", graph.node("Sign", y), scalar(graph, eqn, math.pi / 2))
    return graph.node("Where", at_zero, upright, off)


def _round(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    """To even, or away from zero."""
    if int(eqn.params["rounding_method"]) == 1:
        return graph.node("Round", x)
    up = graph.node("Floor", graph.node("Add", graph.node("Abs", x), scalar(graph, eqn, 0.5)))
    return graph.node("Mul", graph.node("Sign", x), up)


def _is_finite(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    bad = graph.node("Or", graph.node("IsNaN", x), graph.node("IsInf", x))
    return graph.node("Not", bad)


def _is_before(graph: Graph, eqn: JaxprEqn, lhs: str, rhs: str) -> str:
    """In the order of all floats: -0 before 0, nan behind everything."""
    less = graph.node("Less", lhs, rhs)
    if _whole(eqn):
        return less
    none, other = graph.node("IsNaN", rhs), graph.node("Not", graph.node("IsNaN", lhs))
    over = graph.node("Less", graph.node("Reciprocal", lhs), graph.node("Reciprocal", rhs))
    zeros = graph.node("And", graph.node("Equal", lhs, rhs), over)
    return graph.node("Or", graph.node("Or", less, zeros), graph.node("And", none, other))


def _is_not_behind(graph: Graph, eqn: JaxprEqn, lhs: str, rhs: str) -> str:
    return graph.node("Not", _is_before(graph, eqn, rhs, lhs))


def _not_equal(graph: Graph, eqn: JaxprEqn, lhs: str, rhs: str) -> str:
    return graph.node("Not", graph.node("Equal", lhs, rhs))


def _cast(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    """Floats become integers within their range, as in XLA; integers wrap."""
    old, new = (np.dtype(v) for v in (jaxprs.dtype_of(eqn.invars[0]), eqn.params["new_dtype"]))
    if new == np.bool_ and old != np.bool_:
        return graph.node("Not", graph.node("Equal", x, scalar(graph, eqn, 0)))
    wide = computed(eqn.invars[0])
    if new.kind in "iu" and wide.kind == "f":
        limits = np.iinfo(new)
        most = wide.type(limits.max)
        if int(most) > limits.max:  # rounded up
            most = np.nextafter(most, wide.type(0))
        x = graph.node("Clip", x, scalar(graph, eqn, limits.min), scalar(graph, eqn, most))
    return graph.cast(x, new)


def _divided(graph: Graph, eqn: JaxprEqn, x: str, y: str) -> str:
    """Of integers -1 where it divides by zero, as in XLA; ONNX Runtime would abort."""
    if not _whole(eqn):
        return graph.node("Div", x, y)
    at_zero, safe = _apart_from_zero(graph, eqn, y)
    result = graph.node("Div", x, safe)
    return graph.node("Where", at_zero, scalar(graph, eqn, -1), result) if at_zero else result


def _remainder(graph: Graph, eqn: JaxprEqn, x: str, y: str) -> str:
    """With the sign of the dividend."""
    if not _whole(eqn):
        return graph.node("Mod", x, y, fmod=1)
    at_zero, safe = _apart_from_zero(graph, eqn, y)
    whole = graph.node("Div", x, safe)
    result = graph.node("Sub", x, graph.node("Mul", whole, safe))
    return graph.node("Where", at_zero, x, result) if at_zero else result


def _apart_from_zero(graph: Graph, eqn: JaxprEqn, y: str) -> tuple[str, str]:
    """Where a divisor is zero ("" for nowhere), and ones in those places."""
    known = graph.value(y)
    if known is not None and np.all(known):
        return "", y
    at_zero = graph.node("Equal", y, scalar(graph, eqn, 0))
    return at_zero, graph.node("Where", at_zero, scalar(graph, eqn, 1), y)


def _whole(eqn: JaxprEqn) -> bool:
    return np.dtype(jaxprs.dtype_of(eqn.invars[0])).kind in "iub"


def _bits(logical: str, bitwise: str) -> Rule:
    """Of truth values, or of the bits of integers."""

    def rule(graph: Graph, eqn: JaxprEqn, *operands: str) -> str:
        if jaxprs.dtype_of(eqn.invars[0]) == np.bool_:
            truths = [graph.cast(x, np.bool_) for x in operands]
            return graph.cast(graph.node(logical, *truths), np.int32)
        return graph.node(bitwise, *operands)

    return rule


def _shifted(direction: str) -> Rule:
    """Of the bits of integers; by as many as there are, or more, all go."""

    def rule(graph: Graph, eqn: JaxprEqn, x: str, by: str) -> str:
        bits, wide = 8 * np.dtype(jaxprs.dtype_of(eqn.invars[0])).itemsize, computed(eqn.invars[0])
        zero, last = scalar(graph, eqn, 0), scalar(graph, eqn, bits - 1)
        low, high = graph.node("GreaterOrEqual", by, zero), graph.node("LessOrEqual", by, last)
        inside = graph.node("And", low, high)
        if direction == "ARITHMETIC":  # of what is negative the ones
            negative = graph.node("Less", x, zero)
            turned = graph.node("Where", negative, graph.node("BitwiseNot", x), x)
            places = graph.node("Where", inside, by, last)
            found = graph.cast(_by_bits(graph, turned, places, "RIGHT", np.uint64), wide)
            return graph.node("Where", negative, graph.node("BitwiseNot", found), found)
        if direction == "RIGHT" and bits < 32:  # without the sign that a wider type has
            x = graph.node("BitwiseAnd", x, scalar(graph, eqn, 2**bits - 1))
        places = graph.node("Where", inside, by, zero)
        dtype = np.uint64 if bits == 64 else np.uint32
        found = graph.cast(_by_bits(graph, x, places, direction, dtype), wide)
        return graph.node("Where", inside, found, zero)

    return rule


def _by_bits(graph: Graph, x: str, by: str, direction: str, dtype: Any) -> str:
    """BitShift, which knows numbers without a sign."""
    wide, places = graph.cast(x, dtype), graph.cast(by, dtype)
    return graph.node("BitShift", wide, places, direction=direction)


def _clamp(graph: Graph, eqn: JaxprEqn, low: str, x: str, high: str) -> str:
    return graph.node("Min", graph.node("Max", x, low), high)


def _select(graph: Graph, eqn: JaxprEqn, which: str, *cases: str) -> str:
    """One of two by a truth value, or of several by a number."""
    if jaxprs.dtype_of(eqn.invars[0]) == np.bool_:
        return graph.node("Where", graph.cast(which, np.bool_), cases[1], cases[0])
    found = cases[-1]
    for k, case in reversed(list(enumerate(cases[:-1]))):
        here = graph.node("LessOrEqual", which, scalar(graph, eqn, k))
        found = graph.node("Where", here, case, found)
    return found


_HALVES: Mapping[tuple[int, int], Any] = {(5, 10): np.float16, (8, 7): jnp.bfloat16}


def _reduced_precision(graph: Graph, eqn: JaxprEqn, x: str) -> str:
    bits = eqn.params["exponent_bits"], eqn.params["mantissa_bits"]
    known: Mapping[tuple[int, int], int] = {(8, 23): 1, (11, 52): 11}  # float32, float64
    if bits in _HALVES:
        return graph.cast(graph.cast(x, _HALVES[bits]), computed(eqn.invars[0]))
    if bits not in known:
        raise Unsupported(f"rounding to {bits[0]} bits of exponent and {bits[1]} of mantissa")
    return x


NOTHING = (
    jaxprs.copy_p, jaxprs.optimization_barrier_p, jaxprs.pvary_p, p.copy_p, p.device_put_p,
    p.name_p, p.sharding_constraint_p, p.stop_gradient_p,
)  # fmt: skip

COMPARED: Mapping[Primitive, Rule] = {
    p.eq_p: plain("Equal"),
    p.ge_p: plain("GreaterOrEqual"),
    p.gt_p: plain("Greater"),
    p.is_finite_p: _is_finite,
    p.le_p: plain("LessOrEqual"),
    p.le_to_p: _is_not_behind,
    p.lt_p: plain("Less"),
    p.lt_to_p: _is_before,
    p.ne_p: _not_equal,
}
"""Their results are truth values, whatever the type of their operands."""

RULES: Mapping[Primitive, Rule] = {
    **dict.fromkeys(NOTHING, same),
    **COMPARED,
    p.abs_p: plain("Abs"),
    p.acos_p: plain("Acos"),
    p.acosh_p: plain("Acosh"),
    p.add_jaxvals_p: plain("Add"),
    p.add_p: plain("Add"),
    p.and_p: _bits("And", "BitwiseAnd"),
    p.asin_p: plain("Asin"),
    p.asinh_p: plain("Asinh"),
    p.atan2_p: _atan2,
    p.atan_p: plain("Atan"),
    p.atanh_p: plain("Atanh"),
    p.cbrt_p: _cbrt,
    p.ceil_p: plain("Ceil"),
    p.convert_element_type_p: _cast,
    p.cos_p: plain("Cos"),
    p.cosh_p: plain("Cosh"),
    p.div_p: _divided,
    p.erf_p: plain("Erf"),
    p.erfc_p: _erfc,
    p.exp2_p: _exp2,
    p.exp_p: plain("Exp"),
    p.expm1_p: _expm1,
    p.floor_p: plain("Floor"),
    p.integer_pow_p: _integer_pow,
    p.log1p_p: _log1p,
    p.log_p: plain("Log"),
    p.logistic_p: plain("Sigmoid"),
    p.max_p: plain("Max"),
    p.min_p: plain("Min"),
    p.mul_p: plain("Mul"),
    p.neg_p: plain("Neg"),
    p.not_p: _bits("Not", "BitwiseNot"),
    p.or_p: _bits("Or", "BitwiseOr"),
    p.pow_p: plain("Pow"),
    p.reduce_precision_p: _reduced_precision,
    p.rem_p: _remainder,
    p.round_p: _round,
    p.rsqrt_p: _rsqrt,
    p.select_n_p: _select,
    p.shift_left_p: _shifted("LEFT"),
    p.shift_right_arithmetic_p: _shifted("ARITHMETIC"),
    p.shift_right_logical_p: _shifted("RIGHT"),
    p.sign_p: plain("Sign"),
    p.sin_p: plain("Sin"),
    p.sinh_p: plain("Sinh"),
    p.sqrt_p: plain("Sqrt"),
    p.square_p: _square,
    jaxprs.one_minus_square_p: _one_minus_square,
    jaxprs.polynomial_p: _polynomial,
    p.sub_p: plain("Sub"),
    p.tan_p: plain("Tan"),
    p.tanh_p: plain("Tanh"),
    p.xor_p: _bits("Xor", "BitwiseXor"),
    jaxprs.clamp_p: _clamp,
    jaxprs.log2_p: _log2,
}
