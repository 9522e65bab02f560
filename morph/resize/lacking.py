"""What a sum over a shrunk group lacks where dead channels are not zero but all alike.

In the variance mean((x - mean(x))^2) a dead channel holds (0 - mean(x))^2. It is not zero, so that
a sum over the channels that are left would miss it; but it is the same for all dead channels, so
that one slice, computed from what the seed's equations say, times their number makes it whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp

from morph.resize.sizes import Sizes
from regularizers.channels.dead import Dead, parts_of
from regularizers.primitives import jaxprs
from regularizers.primitives.axes import size
from regularizers.primitives.jaxprs import Literal, Var
from regularizers.primitives.jaxprs import primitives as p
from regularizers.primitives.step import Body, Step
from regularizers.primitives.terms import Atom, atoms, freeze


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The values of a body while it is evaluated; calls in it that run in place have their own.

    Attributes:
        body: what is evaluated.
        env: the values of its variables so far.
        call: the step that calls it in place, and the frame of that.
        calls: the frames of the calls in it, by the `id` of the step.
    """

    body: Body
    env: dict[Var, Any]
    call: tuple[Step, Frame] | None = None
    calls: dict[int, Frame] = field(default_factory=dict)

    def enter(self, step: Step, env: dict[Var, Any]) -> Frame:
        """The frame of a call that is evaluated in place."""
        frame = Frame(body=step.bodies[0], env=env, call=(step, self))
        self.calls[id(step)] = frame
        return frame


@dataclass(frozen=True, kw_only=True)
class Lacking:
    """What the dead slices of a plan's body hold, and how many there are.

    Attributes:
        dead: what analysis found.
        counted: for each group the width that means count; its own where no slices are followed.
        sizes: the sizes now.
    """

    dead: Dead
    counted: Mapping[str, int]
    sizes: Sizes

    def of(self, step: Step, frame: Frame) -> list[Any]:
        """What to add to the result of a sum, given the values around it."""
        added = []
        for (axis, part), group in self.dead.lacking.get(id(step), {}).items():
            lacks = freeze(parts_of(step.operands[0][axis])[part])
            missing = int(size(lacks, self.counted)) - int(size(lacks, self.sizes.widths))
            if missing > 0:
                (v,) = step.eqn.invars
                slice_ = self._slice(frame, v, axis, group)
                total = jaxprs.rebind(step.eqn, [slice_])[0]
                added.append(total * jnp.asarray(missing, total.dtype))
        return added

    def _slice(self, frame: Frame, v: Var | Literal, axis: int, group: Atom) -> Any:
        """One dead slice of a value, of size 1 along the axis."""
        assert isinstance(v, Var)
        body, env = frame.body, frame.env
        held = self.dead.known[id(body)][v].at((axis, group))
        if isinstance(held, float):
            shape = list(env[v].shape)
            shape[axis] = 1
            return jnp.full(shape, held, env[v].dtype)
        if v in body.jaxpr.invars and frame.call is not None:
            call, outer = frame.call
            return self._slice(outer, call.eqn.invars[body.jaxpr.invars.index(v)], axis, group)
        step = next(step for step in body.steps if v in step.eqn.outvars)
        if step.bodies:
            inner = step.bodies[0].jaxpr.outvars[step.eqn.outvars.index(v)]
            return self._slice(frame.calls[id(step)], inner, axis, group)
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
                values.append(self._slice(frame, operand, source, group))
            else:
                values.append(operand.val if isinstance(operand, Literal) else env[operand])
        return jaxprs.rebind(step.eqn, values, **changes)[0]
