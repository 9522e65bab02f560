"""What a network computes in fixed point: products of rounded data with rounded kernels.

Kernels are followed to where they meet data with the engine that evaluates factorized kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from morph.compress.fixed_point import Precision, encoded, rounded
from morph.kernels.evaluate import dense, evaluate
from morph.kernels.factorized import Factorized, Format
from regularizers.channels.graph import ChannelGraph
from regularizers.primitives import jaxprs
from regularizers.primitives.jaxprs import ClosedJaxpr, JaxprEqn
from regularizers.primitives.jaxprs import primitives as p

ACCUMULATOR_BITS = 32  # of the integers that products are summed in, where they suffice

# What is done where data meet a kernel: the use, the kernel's path, the equation, which operand the
# kernel is, and both operands.
Product: TypeAlias = Callable[[str, str, JaxprEqn, int, list[Any]], Any]
PRODUCTS = (p.conv_general_dilated_p, p.dot_general_p)


def run(
    closed: ClosedJaxpr, paths: Sequence[str], values: Sequence[Any], product: Product
) -> list[Any]:
    """The outputs of a jaxpr of which some variables are followed to products with data."""
    uses: dict[str, dict[int, str]] = {}

    def meet(eqn: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
        sides = [side for side, value in enumerate(operands) if isinstance(value, Factorized)]
        pair = [dense(value) for value in operands]
        if eqn.primitive not in PRODUCTS or len(sides) != 1:
            return jaxprs.rebind(eqn, pair)
        (path,) = operands[sides[0]].format.names
        known = uses.setdefault(path, {})  # a body may be traced more than once
        name = f"{path} ({len(known) + 1})" if known else path
        return [product(known.setdefault(id(eqn), name), path, eqn, sides[0], pair)]

    marked = [_marked(path, value) for path, value in zip(paths, values, strict=False)]
    return [dense(y) for y in evaluate(closed, [*marked, *values[len(paths) :]], meet)]


def run_rounded(
    graph: ChannelGraph,
    leaves: Mapping[str, Any],
    inputs: Sequence[Any],
    weights: Mapping[str, Precision],
    product: Product,
) -> list[Any]:
    """Runs a traced function, operation by operation, with rounded weights.

    Args:
        graph: of the function.
        leaves: its variables, by path, in its order.
        inputs: its arguments.
        weights: the precisions of variables, by path; others stay as they are.
        product: what is done where data meet a kernel.
    """
    values = [
        rounded(leaf, weights[path]) if path in weights else leaf for path, leaf in leaves.items()
    ]
    closed = ClosedJaxpr(graph.jaxpr, graph.body.consts)
    return run(closed, list(leaves), [*values, *inputs], product)


def _marked(path: str, value: Any) -> Any:
    """A kernel as a network of one core that has its path; transposes and casts leave that."""
    if value.ndim < 2 or not jnp.issubdtype(value.dtype, jnp.inexact):
        return value
    labels = tuple(str(k) for k in range(value.ndim))
    axes = tuple((label,) for label in labels)
    return Factorized(
        cores=(value,), format=Format(kind="dense", names=(path,), labels=(labels,), axes=axes)
    )


def floats(eqn: JaxprEqn, pair: Sequence[Any], written: Sequence[Precision | None]) -> Any:
    """The product of numbers that are rounded where a precision is said."""
    pair = [x if own is None else rounded(x, own) for x, own in zip(pair, written, strict=True)]
    return jaxprs.rebind(eqn, pair)[0]


def integers(eqn: JaxprEqn, pair: Sequence[Any], written: Sequence[Precision | None]) -> Any:
    """The product of codes, exact whatever they are."""
    if None in written:
        return floats(eqn, pair, written)
    precisions = [own for own in written if own is not None]
    codes = [encoded(x, own) for x, own in zip(pair, precisions, strict=True)]
    bits = sum(own.word_length - 1 for own in precisions)
    if terms(eqn) << bits < 1 << (ACCUMULATOR_BITS - 1):
        widest = max(precisions, key=lambda own: own.word_length).integer
        (total,) = jaxprs.rebind(
            eqn, [code.astype(widest) for code in codes], preferred_element_type=jnp.dtype("int32")
        )
    else:
        with jax.enable_x64(True):
            wide = [jax.lax.convert_element_type(code, jnp.float64) for code in codes]
            (total,) = jaxprs.rebind(eqn, wide, preferred_element_type=jnp.dtype("float64"))
            total = jax.lax.convert_element_type(total, jnp.float32)
    value = total.astype(jnp.float32)
    for own in precisions:
        value = value * own.step  # one after the other: neither leaves float32
    return value.astype(jaxprs.dtype_of(eqn.outvars[0]))


def terms(eqn: JaxprEqn) -> int:
    """How many products are summed."""
    params, shape = eqn.params, jaxprs.shape_of(eqn.invars[1])
    if eqn.primitive is p.dot_general_p:
        return math.prod(shape[k] for k in params["dimension_numbers"][0][1])
    return math.prod(shape) // shape[params["dimension_numbers"].rhs_spec[0]]
