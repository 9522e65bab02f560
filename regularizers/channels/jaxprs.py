"""The one file that touches JAX internals which move between versions.

Everything else sees `Jaxpr`, `Primitive` objects and the functions below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any

import jax
from jax._src.lax.lax import clamp_p, copy_p, optimization_barrier_p, split_p
from jax._src.random.core import random_clone_p
from jax._src.random.prng import random_unwrap_p, random_wrap_p
from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Primitive, Var
from jax.extend.core import primitives as primitives

__all__ = [
    "ClosedJaxpr",
    "Jaxpr",
    "JaxprEqn",
    "Literal",
    "Primitive",
    "Var",
    "body_of",
    "clamp_p",
    "copy_p",
    "custom_jvp_body",
    "custom_vjp_bodies",
    "live_equations",
    "optimization_barrier_p",
    "primitives",
    "random_clone_p",
    "random_unwrap_p",
    "random_wrap_p",
    "rebind",
    "scope",
    "shape_of",
    "source_line",
    "split_p",
    "trace",
]

# Where an equation that only calls another jaxpr keeps it.
_BODY_PARAM: dict[Primitive, str] = {
    primitives.jit_p: "jaxpr",
    primitives.closed_call_p: "call_jaxpr",
    primitives.call_p: "call_jaxpr",
    primitives.remat_p: "jaxpr",
    primitives.custom_jvp_call_p: "call_jaxpr",
    primitives.custom_vjp_call_p: "call_jaxpr",
}


def trace(fn: Callable[..., Any], *args: Any) -> tuple[ClosedJaxpr, Any]:
    """The jaxpr of `fn` at `args` (arrays or ShapeDtypeStructs) and the tree of output avals."""
    return jax.make_jaxpr(fn, return_shape=True)(*args)


def body_of(eqn: JaxprEqn) -> ClosedJaxpr | None:
    """The jaxpr that a call-like equation calls once on its own operands; None for others."""
    param = _BODY_PARAM.get(eqn.primitive)
    if param is None:
        return None
    body = eqn.params[param]
    return body if isinstance(body, ClosedJaxpr) else ClosedJaxpr(body, ())


def custom_jvp_body(eqn: JaxprEqn) -> tuple[ClosedJaxpr, list[bool], int]:
    """The derivative rule of a `custom_jvp_call` as a jaxpr.

    Returns:
        The jaxpr from (primals, tangents) to (primals out, those tangents out that are not
        zero), which tangents out are zero, and how many leading operands are constants.
    """
    consts: int = eqn.params["num_consts"]
    zeros = (False,) * (len(eqn.invars) - consts)
    jaxpr, closed_over, out_zeros = eqn.params["jvp_jaxpr_fun"].call_wrapped(*zeros)
    return ClosedJaxpr(jaxpr, closed_over), list(out_zeros), consts


def custom_vjp_bodies(
    eqn: JaxprEqn,
) -> tuple[ClosedJaxpr, ClosedJaxpr, list[int | None], list[bool], int]:
    """The rules of a `custom_vjp_call` as jaxprs.

    Returns:
        forward: from operands to (residuals, outputs); backward: from (residuals, output
        cotangents) to the operands' cotangents that are not symbolically zero; for each
        residual the operand that it is, or None; which operand cotangents backward returns;
        and how many leading operands are constants.
    """
    consts: int = eqn.params["num_consts"]
    n = len(eqn.invars) - consts
    fwd, closed_over = eqn.params["fwd_jaxpr_thunk"].call_wrapped(*(True,) * n)
    _, residual_tree, forwarded = eqn.params["out_trees"]()
    kept = residual_tree.num_leaves - sum(f is not None for f in forwarded)
    operands = [v.aval for v in eqn.invars]
    residual_avals = [v.aval for v in fwd.outvars[:kept]]
    own = iter(residual_avals)
    residuals = [next(own) if f is None else operands[f] for f in forwarded]
    cotangents = [v.aval.to_tangent_aval() for v in eqn.outvars]
    returned: list[bool] = []

    def backward(*args: Any) -> list[Any]:
        results = eqn.params["bwd"].call_wrapped(*args)
        is_value = [isinstance(result, jax.Array) for result in results]
        returned[:] = is_value
        return [result for result, value in zip(results, is_value, strict=True) if value]

    bwd = jax.make_jaxpr(backward)(*residuals, *cotangents)
    return ClosedJaxpr(fwd, closed_over), bwd, list(forwarded), returned, consts


def shape_of(v: Var | Literal) -> tuple[int, ...]:
    """The shape of a value; () for what has none, e.g. a token."""
    return tuple(getattr(v.aval, "shape", ()))


def rebind(eqn: JaxprEqn, values: Sequence[Any], **changes: Any) -> list[Any]:
    """Evaluates `eqn` on `values`, with some static parameters replaced."""
    params = eqn.primitive.get_bind_params({**eqn.params, **changes})
    out = eqn.primitive.bind(*values, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


def live_equations(jaxpr: Jaxpr) -> list[JaxprEqn]:
    """The equations that the outputs depend on, in order; effects count as outputs."""
    live = {v for v in jaxpr.outvars if isinstance(v, Var)}
    kept: list[JaxprEqn] = []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or any(v in live for v in eqn.outvars):
            live.update(v for v in eqn.invars if isinstance(v, Var))
            kept.append(eqn)
    return kept[::-1]


def scope(eqn: JaxprEqn) -> str:
    """The name scope of `eqn` (Flax modules open one each), e.g. `Block_0/attention`."""
    return str(eqn.source_info.name_stack)


def source_line(source: Sequence[Any] | None) -> str:
    """The user's `file:line (function)`; frames of Flax are passed over.

    Args:
        source: the source infos of an equation and of the calls around it, the innermost first.
            JAX keeps no line of the user for what is inside its own jitted functions.
    """
    for info in source or ():
        frames = source_info_util.summarize(info, num_frames=64).splitlines()[::-1]
        own = [frame for frame in frames if "flax" not in PurePath(frame.split(":")[0]).parts]
        if frames:
            return (own or frames)[0]
    return ""
