"""What a sum over a shrunk group lacks where dead channels are not zero but all alike.

In the variance mean((x - mean(x))^2) a dead channel holds (0 - mean(x))^2. It is not zero, so that
a sum over the channels that are left would miss it; but it is the same for all dead channels, so
that one slice, computed from what the seed's equations say, times their number makes it whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from morph.resize.sizes import Sizes
from regularizers.channels.dead import Dead
from regularizers.primitives import jaxprs
from regularizers.primitives.jaxprs import Literal, Var
from regularizers.primitives.jaxprs import primitives as p
from regularizers.primitives.step import Body, Step
from regularizers.primitives.terms import Atom, atoms


@dataclass(frozen=True, kw_only=True)
class Lacking:
    """What the dead slices of a plan's body hold, and how many there are.

    Attributes:
        dead: what analysis found.
        counts: for each group, by name (derivative rules that are inferred later may link atoms),
            by how many channels it is narrower than its means count.
        sizes: the sizes now.
    """

    dead: Dead
    counts: Mapping[str, int]
    sizes: Sizes

    def of(self, body: Body, step: Step, env: Mapping[Var, Any]) -> list[Any]:
        """What to add to the result of a sum in `body`, given the values of its variables."""
        added = []
        for axis, group in self.dead.lacking.get(id(step), ()):
            missing = self.counts.get(group.name or "", 0)
            if missing > 0:
                (v,) = step.eqn.invars
                slice_ = self._slice(body, env, v, axis, group)
                total = jaxprs.rebind(step.eqn, [slice_])[0]
                added.append(total * jnp.asarray(missing, total.dtype))
        return added

    def _slice(
        self, body: Body, env: Mapping[Var, Any], v: Var | Literal, axis: int, group: Atom
    ) -> Any:
        """One dead slice of a value, of size 1 along the axis."""
        assert isinstance(v, Var)
        held = self.dead.known[id(body)][v].at((axis, group))
        if isinstance(held, float):
            shape = list(env[v].shape)
            shape[axis] = 1
            return jnp.full(shape, held, env[v].dtype)
        step = next(step for step in body.steps if v in step.eqn.outvars)
        params, changes = step.eqn.params, {}
        if step.primitive is p.transpose_p:
            sources: Sequence[int | None] = [params["permutation"][axis]]
        elif step.primitive is p.squeeze_p:
            left = [k for k in range(len(step.operands[0])) if k not in params["dimensions"]]
            sources = [left[axis]]
        elif step.primitive is p.broadcast_in_dim_p:
            to = params["broadcast_dimensions"]
            sources = [to.index(axis) if axis in to else None]
            shape = list(self.sizes.shape(step.results[0]))
            shape[axis] = 1
            changes = {"shape": tuple(shape)}
        else:  # elementwise
            sources = [
                axis if len(axes) == len(step.results[0]) else None for axes in step.operands
            ]
        values = []
        for source, operand, axes in zip(sources, step.eqn.invars, step.operands, strict=True):
            if source is not None and group.name in {atom.name for atom in atoms(axes[source])}:
                values.append(self._slice(body, env, operand, source, group))
            else:
                values.append(operand.val if isinstance(operand, Literal) else env[operand])
        return jaxprs.rebind(step.eqn, values, **changes)[0]
