"""Strengths: one non-negative number per channel, which the penalty pulls to zero.

A penalty says which members of a group count and how strong each makes a channel; a combination
says how the members of a group agree. Both are rows of a table.

Sources: group lasso (Yuan and Lin 2006; RMS over the fan-in as in MorphNet, Gordon et al. 2018),
batch-norm gamma (Liu et al. 2017, "Learning efficient convolutional networks"), the probability
that a stochastic gate is open (see `gates`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from regularizers.channels.graph import ChannelGraph
from regularizers.channels.parts import Group
from regularizers.objective import gates as stochastic
from regularizers.primitives import axes as ax
from regularizers.primitives.axes import Axis


def rms(leaf: Float[Array, "..."], axis: int, l1_share: float = 0.0) -> Float[Array, " n"]:
    """Root mean square of every slice along `axis`: group lasso, in MorphNet's normalisation.

    With an L1 share s it is (1 - s) RMS + s mean |w|. Computed in float32 or wider, so that squares
    of half-precision weights do not overflow; its gradient at a slice of zeros is zero.
    """
    if not isinstance(leaf, jax.core.Tracer):
        return _rms_now(np.asarray(leaf), axis, l1_share)
    wide = leaf.astype(leaf.dtype if leaf.dtype.itemsize >= 4 else jnp.float32)
    others = tuple(k for k in range(leaf.ndim) if k != axis)
    square = jnp.mean(jnp.square(wide), axis=others)
    root = _root(square)
    if not l1_share:
        return root
    return (1.0 - l1_share) * root + l1_share * jnp.mean(jnp.abs(wide), axis=others)


def _rms_now(leaf: np.ndarray, axis: int, l1_share: float) -> Float[Array, " n"]:
    """`rms` of a value at hand: NumPy compiles nothing, where JAX would for every shape."""
    wide = leaf.astype(np.promote_types(leaf.dtype, np.float32), copy=False)
    flat = wide.reshape(math.prod(wide.shape[:axis]), wide.shape[axis], -1)  # [before, n, after]
    count = max(1, flat.shape[0] * flat.shape[2])
    root = np.sqrt(np.einsum("bna,bna->n", flat, flat) / count)
    if l1_share:
        root = (1.0 - l1_share) * root + l1_share * np.abs(flat).sum((0, 2)) / count
    return jax.device_put(root.astype(wide.dtype))


def _root(square: Float[Array, " n"]) -> Float[Array, " n"]:
    """The square root, with gradient zero at zero."""
    is_zero = square == 0.0
    return jnp.where(is_zero, 0.0, jnp.sqrt(jnp.where(is_zero, 1.0, square)))


def combine_max(strengths: Sequence[Float[Array, " n"]]) -> Float[Array, " n"]:
    """A channel is as strong as its strongest member (MorphNet's default)."""
    if any(isinstance(s, jax.core.Tracer) for s in strengths):
        return reduce(jnp.maximum, strengths)
    return jax.device_put(reduce(np.maximum, map(np.asarray, strengths)))  # compiles nothing


def combine_l2(strengths: Sequence[Float[Array, " n"]]) -> Float[Array, " n"]:
    """The Euclidean norm over members."""
    square = reduce(jnp.add, [jnp.square(s) for s in strengths])
    return _root(square)


def combine_any(strengths: Sequence[Float[Array, " n"]]) -> Float[Array, " n"]:
    """1 - prod(1 - p): the probability that any member is on; for gates."""
    return 1.0 - reduce(jnp.multiply, [1.0 - s for s in strengths])


Combination: TypeAlias = Callable[[Sequence[Float[Array, " n"]]], Float[Array, " n"]]

COMBINATIONS: dict[str, Combination] = {
    "max": combine_max,
    "l2": combine_l2,
    "any": combine_any,
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """One axis of one variable that makes a group strong, and which channel each position is.

    `channel` is None where position c simply is channel c.
    """

    path: str
    axis: int
    channel: np.ndarray | None  # int [positions], -1 where another group
    fresh: float = 1.0  # the strength that a freshly drawn layer gives; 1/sqrt(fan-in) for kernels

    def strength(
        self, leaf: Float[Array, "..."], width: int, l1_share: float
    ) -> Float[Array, " width"]:
        """The strength [width] that this variable gives the channels."""
        if self.channel is None:
            return rms(leaf, self.axis, l1_share)
        strengths = rms(leaf, self.axis, l1_share)
        own = self.channel >= 0
        count = np.bincount(self.channel[own], minlength=width)
        if not isinstance(strengths, jax.core.Tracer):
            square = np.square(np.asarray(strengths))
            mean = np.bincount(self.channel[own], square[own], width) / count
            return jax.device_put(np.sqrt(mean).astype(square.dtype))
        total: Array = jax.ops.segment_sum(jnp.square(strengths), self.channel, num_segments=width)
        return _root(total / count.astype(total.dtype))  # the sum drops -1


@dataclass(frozen=True, kw_only=True)
class Logits:
    """The logits of a group's gates: a channel is as strong as its gate is probably open."""

    path: str
    fresh: float = 1.0

    def strength(
        self, leaf: Float[Array, " width"], width: int, l1_share: float
    ) -> Float[Array, " width"]:
        """The probabilities [width] that the gates are open."""
        del width, l1_share
        return stochastic.probability(jnp.asarray(leaf))


@dataclass(frozen=True, kw_only=True)
class Strength:
    """How one group is penalised: what measures it, and what is pulled to zero with it."""

    group: str
    width: int
    penalty: str
    measured: tuple[Source | Logits, ...]
    pulled: tuple[str, ...]  # paths of the variables that are scaled; none for gates

    @property
    def gates(self) -> str:
        """The path of the group's logits; empty without gates."""
        return next((s.path for s in self.measured if isinstance(s, Logits)), "")

    @property
    def dead_up_to(self) -> float:
        """The strength up to which a channel counts as dead, whatever the threshold."""
        return stochastic.OPEN_SHARE if self.gates else 0.0


def group_lasso(graph: ChannelGraph, group: Group) -> Strength:
    """RMS over the slices of every trained variable that produces the group."""
    sources = _sources(graph, group, lambda kind: True)
    return Strength(
        group=group.name,
        width=group.width,
        penalty="group_lasso",
        measured=sources,
        pulled=tuple(dict.fromkeys(source.path for source in sources)),
    )


def gamma(graph: ChannelGraph, group: Group) -> Strength:
    """|gamma| of the normalisation layers; their shifts are pulled along.

    Where scales and shifts alone cannot make a channel exactly zero (a producer without a
    normalisation after it), the group falls back to group lasso.
    """
    kinds = ("scale", "shift")
    paths = {v.path for v in graph.variables.values() if v.kind in kinds and len(v.shape) == 1}
    scales = tuple(
        source
        for source in _sources(graph, group, lambda kind: kind == "scale")
        if source.path in paths
    )
    if not scales or group.name not in graph.exact_with(frozenset(paths)):
        return group_lasso(graph, group)
    own = _sources(graph, group, lambda kind: kind in kinds)
    return Strength(
        group=group.name,
        width=group.width,
        penalty="gamma",
        measured=scales,
        pulled=tuple(dict.fromkeys(s.path for s in own if s.path in paths)),
    )


def gates(graph: ChannelGraph, group: Group) -> Strength:
    """The probability that a channel's stochastic gate is open; see `regularizers.objective.gates`.

    A group that no trained variable can silence falls back to group lasso.
    """
    trained = frozenset(path for path, variable in graph.variables.items() if variable.trained)
    if group.name not in graph.exact_with(trained):
        return group_lasso(graph, group)
    return Strength(
        group=group.name,
        width=group.width,
        penalty="gates",
        measured=(Logits(path=stochastic.path_of(graph, group.name)),),
        pulled=(),
    )


Penalty: TypeAlias = Callable[[ChannelGraph, Group], Strength]

PENALTIES: dict[str, Penalty] = {"group_lasso": group_lasso, "gamma": gamma, "gates": gates}


def _sources(
    graph: ChannelGraph, group: Group, wanted: Callable[[str], bool]
) -> tuple[Source, ...]:
    """The trained axes that produce `group`, of the wanted kinds."""
    found = []
    for member in group.members:
        variable = graph.variables[member.path]
        if member.produces and variable.trained and wanted(variable.kind):
            axis = variable.axes[member.axis]
            channel = None if axis == group.name else channel_of(axis, group.name, graph.widths)
            fan_in = math.prod(variable.shape) / variable.shape[member.axis]
            fresh = 1.0 / math.sqrt(max(1.0, fan_in))
            found.append(Source(path=member.path, axis=member.axis, channel=channel, fresh=fresh))
    return tuple(found)


def channel_of(axis: Axis, group: str, widths: Mapping[str, int]) -> np.ndarray:
    """Int [length]: the channel of `group` that each position of `axis` belongs to, else -1."""
    channels = {
        name: np.arange(width) if name == group else np.full(width, -1)
        for name, width in widths.items()
    }
    return ax.spread(axis, channels, lambda n: np.full(n, -1), np.maximum)
