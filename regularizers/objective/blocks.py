"""How strong a block is: the norm of its last scale and kernel, its switch.

A block has a strength of its own, so that the penalty sees the cost of the whole block: it is
pulled like its average channel, and while it weakens its channels are worth less, in step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from regularizers.channels.blocks import Block
from regularizers.channels.graph import ChannelGraph
from regularizers.channels.parts import Variable
from regularizers.objective.norms import share
from regularizers.objective.sums import Total


@dataclass(frozen=True, kw_only=True)
class BlockStrength:
    """One block that may go.

    Attributes:
        block: what goes with it, and what silences it.
        groups: those of its channel groups that are pulled on.
        measured: the scales and kernels of its switch, and the root mean square of each in a
            freshly drawn layer.
    """

    block: Block
    groups: tuple[str, ...]
    measured: tuple[tuple[str, float], ...]

    def strength(
        self, leaves: Mapping[str, Any], total: Callable[[str], Total]
    ) -> Float[Array, ""]:
        """The root mean square of the switch, in units of a freshly drawn one.

        Args:
            leaves: the variables, by path.
            total: how one is summed, by path.
        """
        squares, size = [], 0
        for path, fresh in self.measured:
            leaf = jnp.asarray(leaves[path], jnp.float32)
            squares.append(total(path)(jnp.square(leaf / fresh), None))
            size += leaf.size
        mean = jnp.stack(squares).sum() / max(1, size)
        return jnp.where(mean > 0.0, jnp.sqrt(jnp.where(mean > 0.0, mean, 1.0)), 0.0)

    def pulled(
        self,
        strength: Float[Array, ""],
        pull: Float[Array, ""],
        protected: Mapping[str, Bool[Array | np.ndarray, " width"]] | None,
        is_held: Bool[Array, ""],
    ) -> Float[Array, ""]:
        """The factor of the switch after a proximal step.

        Args:
            strength: of the block, before.
            pull: what is taken from it.
            protected: the channels that would be kept if training ended now. While they are more
                than one of each group, or all of it, the block is not pulled on.
            is_held: it is silent, and stays so.
        """
        left = jnp.maximum(strength - pull, 0.0)
        if protected is not None:
            own = [protected[name] for name in self.groups]
            is_kept = jnp.stack([kept.sum() > min(1, kept.size - 1) for kept in own]).all()
            left = jnp.where(is_kept, strength, left)
        left = jnp.where(is_held, 0.0, left)
        return share(left, strength)


def block_strengths(graph: ChannelGraph, groups: Collection[str]) -> tuple[BlockStrength, ...]:
    """The blocks of a network that have channels to pull on.

    Args:
        graph: of the network.
        groups: the names of the channel groups that are pulled on.
    """
    found = []
    for block in graph.blocks.values():
        own = tuple(name for name in block.groups if name in groups)
        switch = [graph.variables[path] for path in block.switch]
        measured = [v for v in switch if v.kind != "shift"] or switch
        if own:
            found.append(
                BlockStrength(
                    block=block,
                    groups=own,
                    measured=tuple((v.path, _fresh(v)) for v in measured),
                )
            )
    return tuple(found)


def _fresh(variable: Variable) -> float:
    """The root mean square of a freshly drawn variable: 1/sqrt(fan-in) of a kernel, else 1."""
    if variable.kind != "kernel":
        return 1.0
    fan_in = math.prod(n for k, n in enumerate(variable.shape) if k not in variable.produces)
    return 1.0 / math.sqrt(max(1, fan_in))


def spared(blocks: Collection[BlockStrength], silent: Collection[str]) -> frozenset[str]:
    """Of silent blocks those that may go: of towers that are all silent the first one stays."""
    kept = {
        one.block.rivals[0]
        for one in blocks
        if one.block.rivals and set(one.block.rivals).issubset(silent)
    }
    return frozenset(silent) - kept


Costs = Callable[[Float[Array, " groups"]], Float[Array, ""]]


def block_pulls(
    blocks: Collection[BlockStrength],
    cost: Costs,
    order: Collection[str],
    alive: Float[Array, " groups"],
    own: Mapping[str, Any],
    step: Any,
) -> dict[str, Float[Array, ""]]:
    """What each block loses: `step` times what it costs now per channel that is alive.

    Args:
        blocks: the blocks.
        cost: of widths.
        order: the groups, in the order of the widths.
        alive: the widths now.
        own: the strengths of channels, by group, blocks not counted: their mean is the unit.
        step: how much a channel of marginal cost 1 loses.
    """
    whole, names = cost(alive), list(order)
    pulls = {}
    for one in blocks:
        inner = jnp.asarray([name in one.block.groups for name in names])
        without = cost(jnp.where(inner, 0.0, alive))
        channels = jnp.where(jnp.asarray([name in one.groups for name in names]), alive, 0.0).sum()
        each = (whole - without) / jnp.maximum(channels, 1.0)
        unit = jnp.mean(jnp.concatenate([own[name] for name in one.groups]))
        pulls[one.block.name] = step * each / jnp.maximum(unit, 1e-12)
    return pulls
