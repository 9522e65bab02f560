"""The words of penalties: what makes a channel strong, how it is pulled, what a fresh layer has.

A penalty is a function from a channel group to one `GroupPenalty`, and a row of
`penalties.PENALTIES`; `lasso.py`, `gamma.py` and `gating.py` are the ones that there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from regularizers.channels.graph import ChannelGraph
from regularizers.channels.parts import Group, Variable
from regularizers.objective.combinations import Combination
from regularizers.objective.norms import Norm, root
from regularizers.objective.sums import Total, total_here
from regularizers.primitives import axes as ax
from regularizers.primitives.axes import Axis


@dataclass(frozen=True, kw_only=True)
class Source:
    """One axis of one variable that makes a group strong.

    Attributes:
        path: of the variable.
        axis: whose positions are channels.
        shape: of the variable.
        norm: the strength of a position.
        channel: int [positions], the channel of each, -1 where it is another group's; None where
            position c simply is channel c.
        fresh: the strength that a freshly drawn layer gives.
        hint: how the variable is made, where the model does not make it.
    """

    path: str
    axis: int
    shape: tuple[int, ...]
    norm: Norm
    channel: np.ndarray | None = None
    fresh: float = 1.0
    hint: str = ""

    def strength(
        self, leaf: Float[Array | np.ndarray, "..."], width: int, total: Total = total_here
    ) -> Float[Array, " width"]:
        """The strength [width] that this variable, which is so summed, gives the channels."""
        strengths = self.norm(leaf, self.axis, total)
        if self.channel is None:
            return strengths
        own = self.channel >= 0
        count = np.bincount(self.channel[own], minlength=width)
        if not isinstance(strengths, jax.core.Tracer):
            square = np.square(np.asarray(strengths))
            mean = np.bincount(self.channel[own], square[own], width) / count
            return jax.device_put(np.sqrt(mean).astype(square.dtype))
        each: Array = jax.ops.segment_sum(jnp.square(strengths), self.channel, num_segments=width)
        return root(each / count.astype(each.dtype))  # the sum drops -1


@dataclass(frozen=True, kw_only=True)
class Written:
    """A variable [width] that follows from the strengths of its channels.

    Attributes:
        path: of the variable.
        value: of it, from strengths in units of a fresh layer's.
        at_zero: the value of a channel of strength zero.
    """

    path: str
    value: Callable[[Float[Array, " width"]], Float[Array, " width"]]
    at_zero: float


@dataclass(frozen=True, kw_only=True)
class Pull:
    """How the channels of a group are brought to zero.

    Attributes:
        scaled: the paths of variables whose slices fall in step with the strength.
        written: variables that are set so that the strength is what is left.
        least: what a protected channel is at least, in units of a fresh one's strength.
        dead_up_to: the strength up to which a channel is dead, whatever the threshold.
    """

    scaled: tuple[str, ...] = ()
    written: tuple[Written, ...] = ()
    least: float = 0.0
    dead_up_to: float = 0.0

    def left(
        self,
        strength: Float[Array, " width"],
        pull: Float[Array, ""],
        unit: float,
        protected: Bool[Array | np.ndarray, " width"] | None,
        held: Bool[Array | np.ndarray, " width"] | None,
    ) -> Float[Array, " width"]:
        """The strengths after one step.

        Args:
            strength: before it.
            pull: what a channel loses.
            unit: the strength of a fresh channel.
            protected: channels that are not pulled on, and are `least` at least.
            held: channels that are set to zero, whatever they are.
        """
        left = jnp.maximum(strength - pull, 0.0)
        if protected is not None:
            left = jnp.where(protected, jnp.maximum(strength, self.least * unit), left)
        return left if held is None else jnp.where(held, 0.0, left)

    def rewritten(
        self,
        leaves: Mapping[str, Any],
        strength: Float[Array, " width"],
        left: Float[Array, " width"],
        unit: float,
    ) -> dict[str, Float[Array, " width"]]:
        """What is written, by path; to the last bit what was there where nothing was pulled."""
        return {
            one.path: jnp.where(
                left == strength,
                leaves[one.path],
                one.value(left / unit).astype(leaves[one.path].dtype),
            )
            for one in self.written
        }

    @property
    def resting(self) -> dict[str, float]:
        """By path, the number at which dead channels rest."""
        return dict.fromkeys(self.scaled, 0.0) | {one.path: one.at_zero for one in self.written}


@dataclass(frozen=True, kw_only=True)
class GroupPenalty:
    """How one group is penalised.

    Attributes:
        group: its name.
        width: its width.
        penalty: the name of the penalty; another than was asked for where that does not fit.
        measured: what makes its channels strong.
        pull: how they are brought to zero.
    """

    group: str
    width: int
    penalty: str
    measured: tuple[Source, ...]
    pull: Pull

    def strength(
        self,
        leaves: Mapping[str, Any],
        combine: Combination,
        total: Callable[[str], Total],
        *,
        in_fresh: bool,
    ) -> Float[Array, " width"]:
        """The strength of every channel.

        Args:
            leaves: the variables, by path.
            combine: how what is measured agrees.
            total: how a variable is summed, by path.
            in_fresh: in units of a freshly drawn layer's.
        """
        return combine(
            [
                source.strength(leaves[source.path], self.width, total(source.path))
                / (source.fresh if in_fresh else 1.0)
                for source in self.measured
            ]
        )

    @property
    def fresh(self) -> float:
        """The strength of a channel of a freshly drawn layer."""
        return max(source.fresh for source in self.measured)


# (graph, group, share of mean |w| in group lasso) -> how the group is penalised
Penalty: TypeAlias = Callable[[ChannelGraph, Group, float], GroupPenalty]


def fresh_rms(fan_in: float) -> float:
    """The root mean square of a freshly drawn slice."""
    return 1.0 / math.sqrt(max(1.0, fan_in))


def sources_of(
    graph: ChannelGraph,
    group: Group,
    norm: Norm,
    *,
    fresh: Callable[[float], float] = fresh_rms,
    wanted: Callable[[Variable], bool] = lambda variable: True,
) -> tuple[Source, ...]:
    """The trained axes that produce a group.

    Args:
        graph: of the network.
        group: one of its groups.
        norm: what makes a channel strong.
        fresh: the norm of a freshly drawn slice, by its fan-in.
        wanted: which variables count.
    """
    found = []
    for member in group.members:
        variable = graph.variables[member.path]
        if member.produces and variable.trained and wanted(variable):
            axis = variable.axes[member.axis]
            channel = None if axis == group.name else channel_of(axis, group.name, graph.widths)
            fan_in = math.prod(variable.shape) / variable.shape[member.axis]
            found.append(
                Source(
                    path=member.path,
                    axis=member.axis,
                    shape=variable.shape,
                    norm=norm,
                    channel=channel,
                    fresh=fresh(fan_in),
                )
            )
    return tuple(found)


def paths_of(sources: Sequence[Source]) -> tuple[str, ...]:
    """The paths of what is measured, each once."""
    return tuple(dict.fromkeys(source.path for source in sources))


def channel_of(axis: Axis, group: str, widths: Mapping[str, int]) -> np.ndarray:
    """Int [length]: the channel of `group` that each position of `axis` belongs to, else -1."""
    channels = {
        name: np.arange(width) if name == group else np.full(width, -1)
        for name, width in widths.items()
    }
    return ax.spread(axis, channels, lambda n: np.full(n, -1), np.maximum)
