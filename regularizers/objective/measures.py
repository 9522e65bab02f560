"""The strengths of all channels of a network, from its variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from regularizers.channels.calls import flat_paths
from regularizers.channels.graph import ChannelGraph
from regularizers.errors import InputError
from regularizers.messages import near
from regularizers.objective.blocks import BlockStrength
from regularizers.objective.combinations import Combination
from regularizers.objective.penalty import GroupPenalty


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What is measured, and in which units.

    Attributes:
        graph: of the network.
        groups: how each group is penalised.
        combine: how the members of a group agree.
        in_fresh: each source counts in units of a freshly drawn layer's.
        scale: a factor on the strengths of a group; 1 where there is none.
        blocks: those that may go; while one weakens its channels count for less.
    """

    graph: ChannelGraph
    groups: tuple[GroupPenalty, ...]
    combine: Combination
    in_fresh: bool = False
    scale: Mapping[str, float] = field(default_factory=dict)
    blocks: tuple[BlockStrength, ...] = ()

    def strengths(self, variables: Any) -> dict[str, Float[Array, " width"]]:
        """The strength of every channel, by group; of a channel in a block that weakens, less."""
        leaves = self.by_path(variables)
        own = self.own(leaves)
        for one in self.blocks:
            share = jnp.minimum(one.strength(leaves), 1.0)
            own |= {name: own[name] * share for name in one.groups}
        return own

    def own(self, leaves: Mapping[str, Any]) -> dict[str, Float[Array, " width"]]:
        """The strength of every channel by what produces it."""
        return {
            g.group: self.scale.get(g.group, 1.0)
            * g.strength(leaves, self.combine, in_fresh=self.in_fresh)
            for g in self.groups
        }

    def unit(self, g: GroupPenalty) -> float:
        """The strength of a channel of a freshly drawn layer; of a gate that is surely open."""
        return (1.0 if self.in_fresh else g.fresh) * self.scale.get(g.group, 1.0)

    def thresholds(self, least: float) -> dict[str, float]:
        """The strength up to which a channel is dead, by group; at least the one given."""
        return {
            g.group: max(least, g.pull.dead_up_to * self.scale.get(g.group, 1.0))
            for g in self.groups
        }

    def by_path(self, variables: Any) -> dict[str, Any]:
        """The variables by their paths as traced.

        Raises:
            ValueError: if one that is measured is missing, or has another shape.
        """
        paths, leaves, _ = flat_paths(variables)
        found = {self.full(path): leaf for path, leaf in zip(paths, leaves, strict=True)}
        for path, expected in self._shapes.items():
            leaf = found.get(path)
            if leaf is None:
                hint = f"; {self._hints[path]}" if path in self._hints else near(path, found)
                raise InputError(f"the variables do not fit the graph: {path!r} is missing{hint}")
            if tuple(np.shape(leaf)) != expected:
                raise InputError(
                    f"the variables do not fit the graph: {path!r} was traced with "
                    f"shape {list(expected)}, found {list(np.shape(leaf))}"
                )
        return found

    def read(self, variables: Any) -> dict[str, Any]:
        """What strengths are measured of, by path: variables as any of these functions take them.

        Raises:
            ValueError: as `by_path`.
        """
        found = self.by_path(variables)
        return {path: found[path] for path in self._shapes}

    def full(self, path: str) -> str:
        """The path as traced, also where only `params` was passed."""
        known = path in self.graph.variables or path in self._shapes
        return path if known else f"params/{path}"

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of everything that is measured, and of what silences blocks, by path."""
        switches = [path for one in self.blocks for path in one.block.switch]
        return {source.path: source.shape for g in self.groups for source in g.measured} | {
            path: self.graph.variables[path].shape for path in switches
        }

    @cached_property
    def _hints(self) -> dict[str, str]:
        """How what the model does not make is made, by path."""
        return {s.path: s.hint for g in self.groups for s in g.measured if s.hint}
