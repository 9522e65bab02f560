"""The strengths of all channels of a network, from its variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import jax
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
from regularizers.objective.sums import Sums, Total

Tree = TypeVar("Tree")


class Measured(NamedTuple):
    """How strong channels and blocks are.

    Attributes:
        own: of every channel by what produces it, by group.
        blocks: of every block, by name.
        past: of every block some time before; None if that was not asked for.
    """

    own: dict[str, Float[Array, " width"]]
    blocks: dict[str, Float[Array, ""]]
    past: dict[str, Float[Array, ""]] | None


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
        sums: how variables are summed.
    """

    graph: ChannelGraph
    groups: tuple[GroupPenalty, ...]
    combine: Combination
    in_fresh: bool = False
    scale: Mapping[str, float] = field(default_factory=dict)
    blocks: tuple[BlockStrength, ...] = ()
    sums: Sums = field(default_factory=Sums)

    def strengths(self, variables: Any) -> dict[str, Float[Array, " width"]]:
        """The strength of every channel, by group; of a channel in a block that weakens, less."""
        return self.weakened(self.measured(variables))

    def measured(self, variables: Any, before: Any = None) -> Measured:
        """All that is measured.

        Args:
            variables: the traced variables, or only their `params`.
            before: the same some time before, if blocks are to be measured there, too.
        """
        leaves = self.by_path(variables)
        past = self.by_path(before) if self.blocks and before is not None else None
        found = Measured(
            self.own(leaves),
            {one.block.name: one.strength(leaves, self.total) for one in self.blocks},
            past and {one.block.name: one.strength(past, self.total) for one in self.blocks},
        )
        return self.sums.whole(found)

    def of_both(self, variables: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The strengths of all channels, by group, and of all blocks, by name."""
        found = self.measured(variables)
        return self.weakened(found), found.blocks

    def weakened(self, measured: Measured) -> dict[str, Float[Array, " width"]]:
        """The strength of every channel, of what was measured."""
        found = dict(measured.own)
        for one in self.blocks:
            share = jnp.minimum(measured.blocks[one.block.name], 1.0)
            found |= {name: found[name] * share for name in one.groups}
        return found

    def own(self, leaves: Mapping[str, Any]) -> dict[str, Float[Array, " width"]]:
        """The strength of every channel by what produces it."""
        return {
            g.group: self.scale.get(g.group, 1.0)
            * g.strength(leaves, self.combine, self.total, in_fresh=self.in_fresh)
            for g in self.groups
        }

    def total(self, path: str) -> Total:
        """How a variable, or an array like it, is summed."""
        return self.sums.of(path, self._shapes.get(path) or self.graph.variables[path].shape)

    def laid(self, tree: Tree) -> Tree:
        """Variables, or only their `params`, where they lie within compiled code."""
        paths, leaves, treedef = flat_paths(tree)
        moved = [self.sums.laid(self.full(p), leaf) for p, leaf in zip(paths, leaves, strict=True)]
        found: Tree = jax.tree.unflatten(treedef, moved)
        return found

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
