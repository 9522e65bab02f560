"""`tensorized(fn)`: the same function on variables of which some are factorized."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax

from morph.kernels.compressed import unpacked
from morph.kernels.contract import by_einsum
from morph.kernels.evaluate import Meet, dense, evaluate
from morph.kernels.factorized import Factorized, is_factorized
from morph.kernels.measure import faster
from morph.kernels.products import dot, lookup
from morph.kernels.windows import convolve
from regularizers.channels.calls import bind_call
from regularizers.checks import FUNCTION, NAME, checked
from regularizers.errors import InputError
from regularizers.primitives.jaxprs import ClosedJaxpr, JaxprEqn, dtype_of, rebind
from regularizers.primitives.jaxprs import primitives as p

PLANS = 64  # traces that a function keeps, one per call signature
MODES = ("factorized", "reconstructed", "auto")


@checked(fn=FUNCTION, mode=NAME)
def tensorized(fn: Callable[..., Any], *, mode: str = "factorized") -> Callable[..., Any]:
    """`fn` for variables in which factorized or compressed kernels stand where dense ones stood.

    When called it traces `fn` abstractly with dense kernels, and evaluates it again: where a
    factorized kernel meets a product, a convolution or a lookup it is contracted core by core, in
    the order of the fewest multiplications, with the groups of a convolution side by side;
    transposes, reversals, reshapes and casts on the way leave it factorized; everywhere else it is
    made dense. Compressed kernels and cores (`morph.kernels.compressed`) are made dense first. The
    function composes with `jit`, `grad`, `vmap` and `compact`. Loops and remat survive.

    Args:
        fn: any function `fn(variables, *inputs, **static)`.
        mode: `factorized`; `reconstructed` multiplies with the dense kernel, which is made anew in
            every call: at large batches that can be faster; `auto` measures both, and contraction
            by `jnp.einsum`, for every layer and batch on this device when it is traced, and keeps
            what it found in a file. See `settled` for weights that stay.

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
        raise InputError(f"mode must be one of {', '.join(MODES)}, found {mode!r}")
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


@checked(fn=FUNCTION)
def settled(fn: Callable[..., Any], variables: Any, *inputs: Any, **static: Any) -> Any:
    """The variables for serving: kernels that are faster dense, made so, once.

    A kernel that is made anew in every call can cost more than it saves. Where weights stay, this
    decides by measurement at the shapes of the inputs which factorized kernels to keep. With what
    it gives `tensorized(fn, mode="auto")` is about as fast as the fastest of all ways.

    Args:
        fn: as for `tensorized`.
        variables: with factorized kernels.
        *inputs: arrays or shapes, e.g. of the batch that is served.
        **static: keyword arguments of `fn`.

    Example:
        >>> fast = settled(model.apply, cores, x)             # doctest: +SKIP
        >>> morph.tensorized(model.apply, mode="auto")(fast, x)  # doctest: +SKIP
    """
    variables = unpacked(variables)
    leaves, tree = jax.tree.flatten(variables, is_leaf=is_factorized)
    votes: dict[str, set[bool]] = {}

    def meet(eqn: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
        plain = [_numbered(value, forms.get(_number(value), "")) for value in operands]
        won = "dense"
        if eqn.primitive in CONTRACTIONS:
            arrays = [jax.eval_shape(dense, value) for value in plain]
            ways = {name: (way, plain) for name, way in WAYS.items()}
            won = faster({**ways, "dense": (rebind, arrays)}, eqn)
        for value in operands:
            votes.setdefault(_number(value), set()).add(won == "dense")
        return reconstructed(eqn, operands)

    forms = {str(i): leaf.format.kind for i, leaf in enumerate(leaves) if is_factorized(leaf)}
    numbered = [_numbered(leaf, str(i)) for i, leaf in enumerate(leaves)]
    call = bind_call(fn, jax.tree.map(_struct, variables, is_leaf=is_factorized), inputs, static)
    closed, _ = call.trace(call.structs)
    jax.eval_shape(
        lambda values, arrays: evaluate(closed, [*values, *arrays], meet), numbered, call.arrays
    )
    return jax.tree.unflatten(
        tree,
        [dense(leaf) if votes.get(str(i)) == {True} else leaf for i, leaf in enumerate(leaves)],
    )


def _numbered(leaf: Any, kind: str) -> Any:
    """A factorized kernel whose format's kind tells which it is: that goes with it everywhere."""
    if not isinstance(leaf, Factorized):
        return leaf
    return replace(leaf, format=replace(leaf.format, kind=kind))


def _number(leaf: Any) -> str:
    return leaf.format.kind if isinstance(leaf, Factorized) else ""


def _struct(leaf: Any) -> Any:
    if not isinstance(leaf, Factorized):
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def contracted(eqn: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    """Core by core; dense where that is not possible."""
    contraction = CONTRACTIONS.get(eqn.primitive)
    straight = [x.straight() if isinstance(x, Factorized) else x for x in operands]
    result = contraction(eqn.params, *straight) if contraction else None
    if result is None:
        return reconstructed(eqn, operands)
    return [result.astype(dtype_of(eqn.outvars[0]))]


def reconstructed(eqn: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    """With the dense kernel."""
    return rebind(eqn, [dense(value) for value in operands])


def einsummed(eqn: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    """Core by core, multiplied by `jnp.einsum`."""
    with by_einsum():
        return contracted(eqn, operands)


WAYS: Mapping[str, Meet] = {
    "factorized": contracted,
    "einsum": einsummed,
    "reconstructed": reconstructed,
}


def faster_of(eqn: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    """Whichever of all ways is fastest on this device."""
    if eqn.primitive not in CONTRACTIONS:
        return reconstructed(eqn, operands)
    ways = {name: (way, operands) for name, way in WAYS.items()}
    return WAYS[faster(ways, eqn)](eqn, operands)


CONTRACTIONS = {
    p.conv_general_dilated_p: convolve,
    p.dot_general_p: dot,
    p.gather_p: lookup,
}
