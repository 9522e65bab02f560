"""Evaluates equations again at new sizes, as the records of their primitives say.

Most primitives take their shapes from their operands and are simply bound again. Those with static
shapes among their parameters recompute them from the terms. A primitive without a record was pinned
by inference, so that binding it again is right as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from morph.resize.sizes import Sizes
from regularizers.checks import a, checked
from regularizers.errors import InputError
from regularizers.primitives import jaxprs
from regularizers.primitives.indexing import indexed
from regularizers.primitives.jaxprs import Primitive
from regularizers.primitives.jaxprs import primitives as p
from regularizers.primitives.record import EmissionRule, again
from regularizers.primitives.step import Step
from regularizers.primitives.table import RECORDS


def emit(step: Step, values: Sequence[Any], sizes: Sizes) -> list[Any]:
    """Evaluates one equation on resized values."""
    record = RECORDS.get(step.primitive)
    if record is not None and record.as_seed and all(map(sizes.only_kept, step.results)):
        results = jaxprs.rebind(step.eqn, values)
        return [sizes.slice(r, axes) for r, axes in zip(results, step.results, strict=True)]
    if any(sizes.changes(step.operands[0][k]) for k in step.moves):
        return [_reordered(step, values[0], sizes)]
    if step.primitive is p.concatenate_p:  # what came to measure nothing takes no part
        k = step.eqn.params["dimension"]
        left = [
            np.shape(v)[k] or not axes[k].size
            for v, axes in zip(values, step.operands, strict=True)
        ]
        values = [value for value, stays in zip(values, left, strict=True) if stays] or values[:1]
    rule = (record.emission if record else None) or again
    return jaxprs.rebind(step.eqn, values, **rule(step, sizes))


def _reordered(step: Step, value: Any, sizes: Sizes) -> Any:
    """The first operand with axes in the order that the seed's are put into."""
    axes = step.operands[0]
    for k, order in step.moves.items():
        index = sizes.arrangement(axes[k], order)
        value = jnp.take(value, index, axis=k, mode="clip", unique_indices=True)
    if step.primitive is p.gather_p:
        ((k, _),) = step.moves.items()
        value = jnp.moveaxis(value, k, indexed(step.eqn))
    return value


@checked(primitive=a(Primitive, "a jax.extend.core.Primitive"))
def emits(primitive: Primitive) -> Callable[[EmissionRule], EmissionRule]:
    """Registers which static parameters of a primitive of your own change with the widths.

    The rule is `rule(step, sizes) -> parameters`: `step.operands` and `step.results` are the axes
    that `reg.couples` gave, `sizes.of(axis)` and `sizes.shape(axes)` what they measure now,
    `step.eqn.params` the seed's parameters. A primitive without sizes among its parameters needs
    none.

    Raises:
        ValueError: if the primitive has a rule already, or has no coupling rule yet.

    Example:
        >>> from jax.extend.core import Primitive
        >>> ones_p = Primitive("ones")
        >>> @couples(ones_p)
        ... def ones(solver, eqn):
        ...     return [tuple(map(solver.fresh, eqn.params["shape"]))]
        >>> @emits(ones_p)
        ... def ones(step, sizes):
        ...     return {"shape": sizes.shape(step.results[0])}
    """
    record = RECORDS.get(primitive)
    if record is None:
        raise InputError(
            f"{primitive.name} has no coupling rule, so that all that it touches keeps its size; "
            "register one first, with reg.couples."
        )
    if record.emission is not again or record.params is not None:
        raise InputError(f"{primitive.name} has a rule already; a rule is registered once.")

    def register(rule: EmissionRule) -> EmissionRule:
        RECORDS[primitive] = replace(record, emission=rule)
        return rule

    return register
