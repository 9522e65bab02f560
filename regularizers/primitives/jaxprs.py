"""The one file that touches JAX internals which move between versions.

Everything else sees `Jaxpr`, `Primitive` objects and the functions below.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Primitive, Var
from jax.extend.core import primitives as primitives

from regularizers.errors import MorphError

__all__ = [
    "RUNS_JAXPRS",
    "STAND_INS",
    "SUPPORTED",
    "ClosedJaxpr",
    "Jaxpr",
    "JaxprEqn",
    "Literal",
    "Primitive",
    "UnknownLayoutError",
    "Var",
    "bodies_of",
    "call_hi_primitive_p",
    "checkpoint_of",
    "clamp_p",
    "composite_p",
    "constants_of",
    "copy_p",
    "custom_jvp_body",
    "custom_vjp_bodies",
    "custom_vmap_p",
    "debug_callback_p",
    "debug_print_p",
    "dim_as_value_p",
    "dtype_of",
    "empty_p",
    "frames_of",
    "layout_constraint_p",
    "live_equations",
    "log2_p",
    "lu_pivots_to_permutation_p",
    "measured",
    "mulhi_p",
    "one_minus_square_p",
    "optimization_barrier_p",
    "part_of",
    "polynomial_p",
    "primitives",
    "psum_invariant_p",
    "pvary_p",
    "ragged_dot_general_p",
    "random_clone_p",
    "random_unwrap_p",
    "random_wrap_p",
    "rebind",
    "reshard_p",
    "scan_of",
    "scatter_sub_p",
    "scope",
    "shape_of",
    "shard_map_of",
    "shard_map_p",
    "split_p",
    "stack_p",
    "symmetric_product_p",
    "tile_p",
    "trace",
    "unstack_p",
    "while_of",
]


STAND_INS: set[Primitive] = set()  # for what this JAX does not have


def _internal(name: str, *modules: str) -> Primitive:
    """A primitive that `jax.extend` does not show, wherever this JAX keeps it.

    Where it has none, a stand-in that no equation will ever have.
    """
    for module in modules:
        with contextlib.suppress(ImportError):
            found = getattr(importlib.import_module(f"jax._src.{module}"), name, None)
            if isinstance(found, Primitive):
                return found
    stand_in = Primitive(name.removesuffix("_p"))
    STAND_INS.add(stand_in)
    return stand_in


call_hi_primitive_p = _internal("call_hi_primitive_p", "hijax")
clamp_p = _internal("clamp_p", "lax.lax")
composite_p = _internal("composite_p", "lax.lax")
copy_p = _internal("copy_p", "lax.lax")
custom_vmap_p = _internal("custom_vmap_p", "custom_batching")
debug_callback_p = _internal("debug_callback_p", "debugging")
debug_print_p = _internal("debug_print_p", "debugging")
dim_as_value_p = _internal("dim_as_value_p", "export.shape_poly")
empty_p = _internal("empty_p", "lax.lax")
layout_constraint_p = _internal("layout_constraint_p", "pjit")
lu_pivots_to_permutation_p = _internal("lu_pivots_to_permutation_p", "lax.linalg")
log2_p = _internal("log2_p", "lax.lax")
mulhi_p = _internal("mulhi_p", "lax.lax")
one_minus_square_p = _internal("one_minus_square_p", "lax.lax")
optimization_barrier_p = _internal("optimization_barrier_p", "lax.lax")
polynomial_p = _internal("polynomial_p", "lax.lax")
psum_invariant_p = _internal("psum_invariant_p", "lax.parallel")
pvary_p = _internal("pvary_p", "core", "lax.parallel")
ragged_dot_general_p = _internal("ragged_dot_general_p", "lax.lax")
random_clone_p = _internal("random_clone_p", "random.core", "random", "prng")
random_unwrap_p = _internal("random_unwrap_p", "random.prng", "prng")
random_wrap_p = _internal("random_wrap_p", "random.prng", "prng")
reshard_p = _internal("reshard_p", "pjit")
scatter_sub_p = _internal("scatter_sub_p", "lax.slicing")
shard_map_p = _internal("shard_map_p", "shard_map")
split_p = _internal("split_p", "lax.lax")
stack_p = _internal("stack_p", "lax.lax")
symmetric_product_p = _internal("symmetric_product_p", "lax.linalg")
tile_p = _internal("tile_p", "lax.lax")
unstack_p = _internal("unstack_p", "lax.lax")

SUPPORTED = "0.10 to 0.12"  # as pyproject.toml bounds it


class UnknownLayoutError(MorphError, NotImplementedError):
    """This JAX keeps something about an equation where no version that is supported keeps it."""


def _param(eqn: JaxprEqn, *names: str) -> Any:
    """A parameter of an equation, by the first of its names that this JAX knows.

    Raises:
        UnknownLayoutError: if it knows none.
    """
    for name in names:
        if name in eqn.params:
            return eqn.params[name]
    raise _unknown(eqn, " or ".join(map(repr, names)))


def _unknown(eqn: JaxprEqn, what: str) -> UnknownLayoutError:
    return UnknownLayoutError(
        f"{what} of {eqn.primitive} was asked for, but in JAX {jax.__version__} that equation has "
        f"the parameters {', '.join(sorted(eqn.params))}; supported are JAX {SUPPORTED}: "
        "pip install a version of these, or a newer morph-jax"
    )


# Where an equation keeps the jaxprs that it runs, in the order of `control.WIRING`; composites
# keep theirs under another name from JAX 0.12 on.
_BODIES: dict[Primitive, tuple[tuple[str, ...], ...]] = {
    primitives.jit_p: (("jaxpr",),),
    primitives.closed_call_p: (("call_jaxpr",),),
    primitives.call_p: (("call_jaxpr",),),
    primitives.remat_p: (("jaxpr",),),
    primitives.custom_jvp_call_p: (("call_jaxpr",),),
    primitives.custom_vjp_call_p: (("call_jaxpr",),),
    primitives.cond_p: (("branches",),),
    primitives.scan_p: (("jaxpr",),),
    primitives.while_p: (("cond_jaxpr",), ("body_jaxpr",)),
    call_hi_primitive_p: (),  # it makes one when asked
    composite_p: (("jaxpr", "call_jaxpr"),),
    custom_vmap_p: (("call",),),
    shard_map_p: (("jaxpr",),),
}
RUNS_JAXPRS: frozenset[Primitive] = frozenset(_BODIES)


def trace(fn: Callable[..., Any], *args: Any) -> tuple[ClosedJaxpr, Any]:
    """The jaxpr of `fn` at `args` (arrays or ShapeDtypeStructs) and the tree of output avals."""
    return jax.make_jaxpr(fn, return_shape=True)(*args)


def bodies_of(eqn: JaxprEqn) -> tuple[ClosedJaxpr, ...]:
    """The jaxprs that a call or control flow runs; none for all other equations."""
    found: list[ClosedJaxpr] = []
    if eqn.primitive is call_hi_primitive_p:
        found.append(_expanded(_param(eqn, "_prim"), tuple(v.aval for v in eqn.invars)))
    for names in _BODIES.get(eqn.primitive, ()):
        value = _param(eqn, *names)
        for body in value if isinstance(value, tuple | list) else (value,):
            found.append(body if isinstance(body, ClosedJaxpr) else ClosedJaxpr(body, ()))
    return tuple(found)


@functools.lru_cache(maxsize=256)
def _expanded(primitive: Any, avals: tuple[Any, ...]) -> ClosedJaxpr:
    """What a primitive of high level is made of (`jnp.searchsorted`, from JAX 0.12 on)."""
    form = primitive.in_tree
    return jax.make_jaxpr(lambda *own: primitive.expand(*jax.tree.unflatten(form, own)))(*avals)


class Scan(NamedTuple):
    """A scan: `(constants, carry, entries) -> (carry, stacked)`.

    Attributes:
        constants: how many operands come first.
        carry: how many come next, and of the results first.
        length: steps; an expression where a size may vary.
        reverse: whether from the last entry on.
        unroll: steps in one iteration of the compiled loop.
    """

    constants: int
    carry: int
    length: Any
    reverse: bool
    unroll: int


def scan_of(eqn: JaxprEqn) -> Scan:
    """What a scan's parameters say.

    Raises:
        UnknownLayoutError: if this JAX says it in another way than those supported.
    """
    if "ft_in" in eqn.params:  # from JAX 0.12 on: the trees of (constants, carry, entries)
        trees: Any = getattr(eqn.params["ft_in"], "elts", ())
        if len(trees) != 3:
            raise _unknown(eqn, "'ft_in' of constants, carry and entries")
        constants, carry = len(trees[0]), len(trees[1])
    else:
        constants, carry = _param(eqn, "num_consts"), _param(eqn, "num_carry")
    return Scan(
        constants=constants,
        carry=carry,
        length=_param(eqn, "length"),
        reverse=bool(_param(eqn, "reverse")),
        unroll=_param(eqn, "unroll"),
    )


class While(NamedTuple):
    """A while loop: `(constants of the condition, of the body, carry) -> carry`."""

    condition_constants: int
    body_constants: int


def while_of(eqn: JaxprEqn) -> While:
    """How many operands of a while loop are constants."""
    return While(_param(eqn, "cond_nconsts"), _param(eqn, "body_nconsts"))


def constants_of(eqn: JaxprEqn) -> int:
    """How many leading operands of a function with a derivative rule are constants."""
    return int(_param(eqn, "num_consts"))


def checkpoint_of(eqn: JaxprEqn) -> dict[str, Any]:
    """The keywords of the `jax.checkpoint` that a remat came from."""
    return {name: _param(eqn, name) for name in ("prevent_cse", "policy")}


class Sharded(NamedTuple):
    """What a `shard_map` was called with."""

    mesh: Any
    in_specs: tuple[Any, ...]
    out_specs: tuple[Any, ...]
    axis_names: frozenset[Any]
    check_vma: bool


def shard_map_of(eqn: JaxprEqn) -> Sharded:
    """The arguments of a `shard_map`."""
    return Sharded(
        mesh=_param(eqn, "mesh"),
        in_specs=tuple(_param(eqn, "in_specs")),
        out_specs=tuple(_param(eqn, "out_specs")),
        axis_names=frozenset(_param(eqn, "newly_manual_axes")),
        check_vma=bool(_param(eqn, "check_vma")),
    )


def custom_jvp_body(eqn: JaxprEqn) -> tuple[ClosedJaxpr, list[bool], int]:
    """The derivative rule of a `custom_jvp_call` as a jaxpr.

    Returns:
        The jaxpr from (primals, tangents) to (primals out, those tangents out that are not
        zero), which tangents out are zero, and how many leading operands are constants.
    """
    consts = constants_of(eqn)
    zeros = (False,) * (len(eqn.invars) - consts)
    jaxpr, closed_over, out_zeros = _param(eqn, "jvp_jaxpr_fun").call_wrapped(*zeros)
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
    consts = constants_of(eqn)
    n = len(eqn.invars) - consts
    fwd, closed_over = _param(eqn, "fwd_jaxpr_thunk").call_wrapped(*(True,) * n)
    _, residual_tree, forwarded = _param(eqn, "out_trees")()
    kept = residual_tree.num_leaves - sum(f is not None for f in forwarded)
    operands = [v.aval for v in eqn.invars]
    residual_avals = [v.aval for v in fwd.outvars[:kept]]
    own = iter(residual_avals)
    residuals = [next(own) if f is None else operands[f] for f in forwarded]
    cotangents = [v.aval.to_tangent_aval() for v in eqn.outvars]
    returned: list[bool] = []

    def backward(*args: Any) -> list[Any]:
        results = _cotangents(eqn, _param(eqn, "bwd").call_wrapped(*args))
        if len(results) != n:
            raise _unknown(eqn, f"what 'bwd' gives for {n} operands, found {len(results)},")
        is_value = [isinstance(result, jax.Array) for result in results]
        returned[:] = is_value
        return [result for result, value in zip(results, is_value, strict=True) if value]

    bwd = jax.make_jaxpr(backward)(*residuals, *cotangents)
    return ClosedJaxpr(fwd, closed_over), bwd, list(forwarded), returned, consts


def _cotangents(eqn: JaxprEqn, results: Any) -> list[Any]:
    """What a backward rule gives; from JAX 0.12 on it comes with logs, which `defvjp` has not.

    Raises:
        UnknownLayoutError: if there are logs.
    """
    if isinstance(results, tuple) and len(results) == 2 and isinstance(results[0], list):
        results, logs = results
        if logs is not None:
            raise _unknown(eqn, "a backward rule without logs")
    return list(results)


def shape_of(v: Var | Literal) -> tuple[int, ...]:
    """The shape of a value; () for what has none, e.g. a token."""
    return tuple(getattr(v.aval, "shape", ()))


def measured(size: Any, known: Mapping[str, Any], join: Callable[[str, Any, Any], Any]) -> Any:
    """A size that depends on others, such as `2*batch + length`, by whatever these are.

    Args:
        size: a size of an array, perhaps symbolic.
        known: the sizes that it may depend on, by name.
        join: `(operation, a, b)`, of what is known or of numbers; operations are `add`, `mul`,
            `floordiv`, `mod`, `max`, `min`.

    Raises:
        KeyError: if it depends on one that is not known.
    """
    if isinstance(size, int):
        return size

    def factor(own: Any) -> Any:
        if own.var is not None:
            return known[own.var]
        return join(own.operation, *(measured(x, known, join) for x in own.operands))

    def term(own: Any, times: int) -> Any:
        factors = [factor(x) for x, power in own._factors for _ in range(power)]
        return functools.reduce(functools.partial(join, "mul"), [times] * (times != 1) + factors)

    terms = [term(own, times) for own, times in size._sorted_terms if own._factors]
    constant = [times for own, times in size._sorted_terms if not own._factors]
    return functools.reduce(functools.partial(join, "add"), [*terms, *constant])


def dtype_of(v: Var | Literal) -> Any:
    """The type of a value; None for what has none, e.g. a token."""
    return getattr(v.aval, "dtype", None)


def rebind(eqn: JaxprEqn, values: Sequence[Any], **changes: Any) -> list[Any]:
    """Evaluates `eqn` on `values`, with some static parameters replaced."""
    params = eqn.primitive.get_bind_params({**eqn.params, **changes})
    out = eqn.primitive.bind(*values, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


def part_of(
    jaxpr: Jaxpr, consts: Mapping[Var, Any], invars: Sequence[Var], outvars: Sequence[Var]
) -> Jaxpr:
    """The same equations between other ends; the ends must enclose a part of them."""
    part = jaxpr.replace(constvars=list(consts), invars=list(invars), outvars=list(outvars))
    return ClosedJaxpr(part, list(consts.values())).jaxpr  # from JAX 0.12 on it holds its consts


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


def frames_of(info: Any) -> list[str]:
    """The frames behind an equation's source info, the innermost first, less those of JAX."""
    return source_info_util.summarize(info, num_frames=64).splitlines()[::-1]
