"""What is zero because its variables left with their block, and what is needed no more.

The variables of removed blocks count as zero. What follows from that is never computed: a sum
keeps its other operand, a concatenation its other segments, and what only zeros need is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp

from regularizers.channels.blocks import IN_PLACE, SUMS
from regularizers.channels.exactness import EVERYTHING, NOTHING, find_inexact
from regularizers.primitives.jaxprs import Literal, Var, dtype_of, shape_of
from regularizers.primitives.signs import ZERO
from regularizers.primitives.step import Body, Step


@dataclass(frozen=True, kw_only=True)
class Silence:
    """Which values are zero, and which steps are still needed.

    Attributes:
        zeros: for each body, by `id`, its values that are zero.
        live: the ids of the steps to evaluate; a body that is not in `zeros` runs whole.
    """

    zeros: dict[int, frozenset[Var]] = field(default_factory=dict)
    live: set[int] = field(default_factory=set)

    def is_zero(self, body: Body, v: Var | Literal) -> bool:
        """Whether a value is zero as a whole, and not computed."""
        return isinstance(v, Var) and v in self.zeros.get(id(body), ())

    def is_live(self, body: Body, step: Step) -> bool:
        """Whether a step of a body has to be evaluated."""
        return id(body) not in self.zeros or id(step) in self.live


def find_silence(body: Body, gone: Collection[int], dropped: Collection[int]) -> Silence:
    """What follows when some inputs of a body are zero, and some outputs not wanted.

    Args:
        body: the inferred function.
        gone: the positions of the inputs that are zero.
        dropped: the positions of the outputs that nobody wants.
    """
    zeroed = [EVERYTHING if i in gone else NOTHING for i in range(len(body.inputs))]
    known = find_inexact(body, (), zeroed).signs
    silence = Silence()
    wanted = {
        v for i, v in enumerate(body.jaxpr.outvars) if i not in dropped and isinstance(v, Var)
    }
    _walk(body, wanted, known, silence)
    return silence


def _walk(body: Body, wanted: set[Var], known: Any, silence: Silence) -> set[Var]:
    """Notes what is live in a body; returns the inputs that are needed."""
    zeros = frozenset(v for v, signs in known[id(body)].items() if signs.whole == ZERO)
    silence.zeros[id(body)] = zeros
    needed = wanted - zeros
    for step in reversed(body.steps):
        results = [v for v in step.eqn.outvars if v in needed]
        if not results and not step.eqn.effects:
            continue
        silence.live.add(id(step))
        operands = {v for v in step.eqn.invars if isinstance(v, Var)}
        if step.primitive in IN_PLACE:
            inner = step.bodies[0]
            asked = {
                w
                for v, w in zip(step.eqn.outvars, inner.jaxpr.outvars, strict=True)
                if v in needed and isinstance(w, Var)
            }
            used = _walk(inner, asked, known, silence)
            operands = {
                v
                for v, w in zip(step.eqn.invars, inner.jaxpr.invars, strict=True)
                if isinstance(v, Var) and w in used
            }
        needed |= operands - zeros
    return needed


def kept_operand(step: Step, is_zero: Sequence[bool]) -> int | None:
    """The operand that a sum with a zero is equal to; None if it has to be computed."""
    for i in SUMS.get(step.primitive, ()):
        kept = 1 - i
        if is_zero[i] and shape_of(step.eqn.invars[kept]) == shape_of(step.eqn.outvars[0]):
            return kept
    return None


def zeros_of(v: Var, shape: Sequence[int]) -> Any:
    """The zeros that stand for a value."""
    return jnp.zeros(tuple(shape), dtype_of(v))
