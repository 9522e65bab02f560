"""How each primitive is evaluated again at new sizes.

Most primitives take their shapes from their operands and are simply bound again. Those with static
shapes among their parameters have a rule here that recomputes them from the terms. A primitive
without a coupling rule was pinned by inference, so that binding it again is right as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from morph.resize.sizes import Sizes
from regularizers.channels import jaxprs
from regularizers.channels.inference import Step
from regularizers.channels.jaxprs import Primitive
from regularizers.channels.jaxprs import primitives as p
from regularizers.errors import InputError

# The static parameters that change.
EmissionRule: TypeAlias = Callable[[Step, Sizes], dict[str, Any]]


def emit(step: Step, values: Sequence[Any], sizes: Sizes) -> list[Any]:
    """Evaluates one equation on resized values."""
    if step.primitive in AS_SEED and all(map(sizes.only_kept, step.results)):
        results = jaxprs.rebind(step.eqn, values)
        return [sizes.slice(r, axes) for r, axes in zip(results, step.results, strict=True)]
    if step.primitive is p.concatenate_p:  # what came to measure nothing takes no part
        k = step.eqn.params["dimension"]
        left = [
            np.shape(v)[k] or not axes[k].size
            for v, axes in zip(values, step.operands, strict=True)
        ]
        values = [value for value, stays in zip(values, left, strict=True) if stays] or values[:1]
    rule = EMISSION.get(step.primitive)
    return jaxprs.rebind(step.eqn, values, **(rule(step, sizes) if rule else {}))


def broadcast_in_dim(step: Step, sizes: Sizes) -> dict[str, Any]:
    """`shape` from the result."""
    return {"shape": sizes.shape(step.results[0])}


def reshape(step: Step, sizes: Sizes) -> dict[str, Any]:
    """`new_sizes` from the result."""
    return {"new_sizes": sizes.shape(step.results[0])}


def random_bits(step: Step, sizes: Sizes) -> dict[str, Any]:
    """`shape` from the result, less the axes of the keys."""
    return {"shape": sizes.shape(step.results[0])[len(step.operands[0]) :]}


def bit_generator(step: Step, sizes: Sizes) -> dict[str, Any]:
    """`shape` from the second result."""
    return {"shape": sizes.shape(step.results[1])}


def tile(step: Step, sizes: Sizes) -> dict[str, Any]:
    """`reps` from the sizes before and after."""
    return {
        "reps": tuple(
            sizes.of(after) // sizes.of(before) if n > 1 else n
            for before, after, n in zip(
                step.operands[0], step.results[0], step.eqn.params["reps"], strict=True
            )
        )
    }


def slice_(step: Step, sizes: Sizes) -> dict[str, Any]:
    """The limits are moved to where the seed's positions went."""
    params, (operand,) = step.eqn.params, step.operands

    def moved(positions: Sequence[int]) -> tuple[int, ...]:
        return tuple(sizes.prefix(term, n) for term, n in zip(operand, positions, strict=True))

    starts, limits = params["start_indices"], params["limit_indices"]
    empty = [start == limit for start, limit in zip(starts, limits, strict=True)]
    return {
        "start_indices": moved([0 if e else n for n, e in zip(starts, empty, strict=True)]),
        "limit_indices": moved([0 if e else n for n, e in zip(limits, empty, strict=True)]),
    }


def split(step: Step, sizes: Sizes) -> dict[str, Any]:
    """`sizes` from the results."""
    k = step.eqn.params["axis"]
    return {"sizes": tuple(sizes.of(result[k]) for result in step.results)}


def pad(step: Step, sizes: Sizes) -> dict[str, Any]:
    """Low and high padding from the ends of the result."""
    config = []
    for term, result, (low, high, interior) in zip(
        step.operands[0], step.results[0], step.eqn.params["padding_config"], strict=True
    ):
        if low >= 0 and high >= 0 and (interior == 0 or term.size <= 1):
            low = sizes.prefix(result, low)
            high = sizes.of(result) - low - sizes.of(term)
        config.append((low, high, interior))
    return {"padding_config": tuple(config)}


def slice_sizes(step: Step, sizes: Sizes) -> dict[str, Any]:
    """`slice_sizes` of axes that are read whole."""
    seed = step.eqn.params["slice_sizes"]
    return {
        "slice_sizes": tuple(
            sizes.of(term) if n == term.size else n
            for term, n in zip(step.operands[0], seed, strict=True)
        )
    }


def convolution(step: Step, sizes: Sizes) -> dict[str, Any]:
    """`feature_group_count` from the input's channels over the kernel's."""
    numbers = step.eqn.params["dimension_numbers"]
    lhs, rhs = step.operands
    channels = sizes.of(lhs[numbers.lhs_spec[1]])
    return {"feature_group_count": channels // max(1, sizes.of(rhs[numbers.rhs_spec[1]]))}


# Evaluated at the seed's shape and sliced: every channel that is kept keeps its position in an
# iota, and the random numbers that it had.
AS_SEED: frozenset[Primitive] = frozenset({
    p.iota_p, p.random_bits_p, p.rng_bit_generator_p, p.rng_uniform_p,
})  # fmt: skip

EMISSION: dict[Primitive, EmissionRule] = {
    p.broadcast_in_dim_p: broadcast_in_dim,
    p.conv_general_dilated_p: convolution,
    p.dynamic_slice_p: slice_sizes,
    p.gather_p: slice_sizes,
    p.iota_p: broadcast_in_dim,
    p.pad_p: pad,
    p.random_bits_p: random_bits,
    p.reshape_p: reshape,
    p.rng_bit_generator_p: bit_generator,
    p.rng_uniform_p: broadcast_in_dim,
    p.slice_p: slice_,
    jaxprs.empty_p: broadcast_in_dim,
    jaxprs.split_p: split,
    jaxprs.tile_p: tile,
}


def emits(primitive: Primitive) -> Callable[[EmissionRule], EmissionRule]:
    """Registers which static parameters of a primitive of your own change with the widths.

    The rule is `rule(step, sizes) -> parameters`: `step.operands` and `step.results` are the axes
    that `reg.couples` gave, `sizes.of(axis)` and `sizes.shape(axes)` what they measure now,
    `step.eqn.params` the seed's parameters. A primitive without sizes among its parameters needs
    none.

    Raises:
        ValueError: if the primitive has a rule already.

    Example:
        >>> from jax.extend.core import Primitive
        >>> ones_p = Primitive("ones")
        >>> @emits(ones_p)
        ... def ones(step, sizes):
        ...     return {"shape": sizes.shape(step.results[0])}
    """
    if primitive in EMISSION:
        raise InputError(f"{primitive.name} has a rule already; a rule is registered once.")

    def register(rule: EmissionRule) -> EmissionRule:
        EMISSION[primitive] = rule
        return rule

    return register
