"""`tensorized(fn)`: the same function on variables of which some are factorized."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax

from morph.compress.values import unpacked
from morph.tensorize.evaluate import Meet, dense, evaluate
from morph.tensorize.factorized import Factorized, is_factorized
from morph.tensorize.measure import faster
from morph.tensorize.products import dot, lookup
from morph.tensorize.windows import convolve
from regularizers.channels.calls import bind_call
from regularizers.channels.jaxprs import ClosedJaxpr, JaxprEqn, dtype_of, rebind
from regularizers.channels.jaxprs import primitives as p

PLANS = 64  # traces that a function keeps, one per call signature
MODES = ("factorized", "reconstructed", "auto")


def tensorized(fn: Callable[..., Any], *, mode: str = "factorized") -> Callable[..., Any]:
    """`fn` for variables in which factorized or compressed kernels stand where dense ones stood.

    When called it traces `fn` abstractly with dense kernels, and evaluates it again: where a
    factorized kernel meets a product, a convolution or a lookup it is contracted core by core, in
    the order of the fewest multiplications; transposes, reshapes and casts on the way leave it
    factorized; everywhere else, e.g. in a convolution with groups, it is made dense. Compressed
    kernels and cores (`morph.compress.values`) are made dense first. The function composes with
    `jit`, `grad`, `vmap` and `compact`. Loops and remat survive.

    Args:
        fn: any function `fn(variables, *inputs, **static)`.
        mode: `factorized`; `reconstructed` multiplies with the dense kernel, which is made anew in
            every call: at large batches that can be faster; `auto` measures both for every layer
            and batch on this device when it is traced, and keeps what it found in a file.

    Returns:
        A function with the signature of `fn`.

    Raises:
        ValueError: if the mode is unknown.

    Example:
        >>> plan = morph.tensorize_plan(graph, variables, rank="vbmf")    # doctest: +SKIP
        >>> fn = morph.tensorized(model.apply)                            # doctest: +SKIP
        >>> fn(plan.factorize(variables), x)                              # doctest: +SKIP
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, found {mode!r}")
    meet: Meet = {"factorized": contracted, "reconstructed": reconstructed, "auto": faster_of}[mode]
    traces: dict[Hashable, tuple[ClosedJaxpr, Any]] = {}

    @functools.wraps(fn)
    def factorized_fn(variables: Any, *inputs: Any, **static: Any) -> Any:
        variables = unpacked(variables)
        leaves = jax.tree.leaves(variables, is_leaf=is_factorized)
        if not any(map(is_factorized, leaves)):
            return fn(variables, *inputs, **static)
        shapes = jax.tree.map(_struct, variables, is_leaf=is_factorized)
        call = bind_call(fn, shapes, inputs, static)
        key = call.signature
        known = traces.get(key) if key is not None else None
        if known is None:
            closed, outputs = call.trace(call.structs)
            known = closed, jax.tree.structure(outputs)
        if key is not None:
            if len(traces) >= PLANS:
                del traces[next(iter(traces))]  # the oldest
            traces[key] = known
        closed, out_tree = known
        return jax.tree.unflatten(out_tree, evaluate(closed, [*leaves, *call.arrays], meet))

    return factorized_fn


def _struct(leaf: Any) -> Any:
    if not isinstance(leaf, Factorized):
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def contracted(eqn: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    """Core by core; dense where that is not possible."""
    contraction = CONTRACTIONS.get(eqn.primitive)
    result = contraction(eqn.params, *operands) if contraction else None
    if result is None:
        return reconstructed(eqn, operands)
    return [result.astype(dtype_of(eqn.outvars[0]))]


def reconstructed(eqn: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    """With the dense kernel."""
    return rebind(eqn, [dense(value) for value in operands])


def faster_of(eqn: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    """Whichever of both is faster on this device."""
    if eqn.primitive not in CONTRACTIONS:
        return reconstructed(eqn, operands)
    ways = {"factorized": contracted, "reconstructed": reconstructed}
    return ways[faster(ways, eqn, operands)](eqn, operands)


CONTRACTIONS = {
    p.conv_general_dilated_p: convolve,
    p.dot_general_p: dot,
    p.gather_p: lookup,
}
