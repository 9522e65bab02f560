"""Slicing the leaves of a tree to the widths of an architecture."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from morph.architecture.optimizer_layouts import (
    Axes,
    adafactor_means,
    axes_of,
    find_group,
    find_place,
    is_of_block,
)
from morph.architecture.parts import ResizedGroup
from morph.architecture.picking import Pick, picked
from morph.architecture.removed import without
from morph.errors import ArchitectureError
from morph.kernels.planned import PlannedKernel
from regularizers.channels.calls import flat_paths
from regularizers.channels.parts import Variable
from regularizers.primitives import axes as ax
from regularizers.primitives.axes import Axis


@dataclass(frozen=True, kw_only=True)
class Slicing:
    """What is needed of an architecture to slice by it.

    Attributes:
        groups: by name.
        variables: of the seed, by path.
        gone: the paths of those that left.
        gone_blocks: the names of the blocks that they left with.
    """

    groups: Mapping[str, ResizedGroup]
    variables: Mapping[str, Variable]
    gone: Collection[str]
    gone_blocks: Collection[str] = ()

    def take(self, tree: Any, factorized: Mapping[str, PlannedKernel]) -> Any:
        """The tree at the new widths, with kernels decomposed; see `Architecture.take`."""
        paths, leaves, treedef = flat_paths(tree)
        if not leaves and (tree is None or isinstance(tree, Mapping)):
            raise ArchitectureError(
                f"there is nothing to take from: expected a tree with paths like "
                f"{next(iter(self.variables))!r}, found {tree!r}."
            )
        places = [find_place(path, self._names) for path in paths]
        groups = [
            find_group(path, np.shape(leaf), self._seed_widths)
            if path not in self.variables
            else None
            for path, leaf in zip(paths, leaves, strict=True)
        ]
        if not any(places) and not any(groups) and any(map(np.ndim, leaves)):
            raise ArchitectureError(
                f"no leaf belongs to the architecture: found {paths[0]!r}, ..., "
                f"expected paths like {next(iter(self.variables))!r}."
            )
        known = [place for place in places if place is not None]
        shapes = {p.owner: (self.variables[p.owner].shape, self.shape(p.owner)) for p in known}
        means = adafactor_means(dict(zip(paths, leaves, strict=True)), known, shapes)
        taken, gone = [], set()
        for i, (path, leaf, place, group) in enumerate(
            zip(paths, leaves, places, groups, strict=True)
        ):
            if group is not None:
                left = not self._widths[group]
                taken.append(leaf if left else self._of_group(leaf, group, path))
            elif place is None:
                left = is_of_block(path, self.gone_blocks)
                taken.append(picked(leaf, (), path))
            elif place.owner in self.gone:
                left = True
                taken.append(leaf)
            else:
                left = False
                leaf, axes = means.get(path) or (
                    leaf,
                    axes_of(
                        leaf, path, place, self.variables[place.owner].at(np.shape(leaf)).shape
                    ),
                )
                taken.append(self._slice(leaf, axes, place.owner, path))
            gone |= {i} if left else set()
        for i, path in enumerate(paths):
            if path in factorized and not isinstance(taken[i], jax.ShapeDtypeStruct):
                taken[i] = factorized[path].decompose(taken[i])
        return without(jax.tree.unflatten(treedef, taken), gone)

    def shape(self, path: str) -> tuple[int, ...]:
        """The shape of a variable now."""
        return tuple(ax.size(axis, self._widths) for axis in self.variables[path].axes)

    def clones(self, path: str) -> dict[int, np.ndarray]:
        """The axes of a variable that consume clones: what each position is a clone of."""
        variable = self.variables[path]
        found = {k: self._positions(axis) for k, axis in enumerate(variable.axes)}
        return {
            k: origin
            for k, origin in found.items()
            if takes_in(variable, k) and np.bincount(origin).max(initial=1) > 1
        }

    def _slice(self, leaf: Any, axes: Axes, owner: str, path: str) -> Any:
        """Takes the kept positions; `axes` says which of the owner's each axis of the leaf is."""
        variable = self.variables[owner]
        picks = []
        for i, k in enumerate(axes):
            if k is None or self._resized.isdisjoint(ax.groups_of(variable.axes[k])):
                continue
            index = self._positions(variable.axes[k])
            clones = np.bincount(index)[index]
            shared = takes_in(variable, k) and clones.max(initial=1) > 1
            picks.append(Pick(axis=i, index=index, share=clones if shared else None))
        return picked(leaf, picks, path)

    def _of_group(self, leaf: Any, name: str, path: str) -> Any:
        """What Morph's own optimizer keeps of every channel of a group, [..., width]."""
        index = self._parents[name]
        picks = [Pick(axis=np.ndim(leaf) - 1, index=index)] if name in self._resized else []
        return picked(leaf, picks, path)

    def _positions(self, axis: Axis) -> np.ndarray:
        known = self._known_positions
        if axis not in known:
            known[axis] = ax.parent_positions(axis, self._parents, self._seed_widths)
        return known[axis]

    @cached_property
    def _names(self) -> dict[str, str]:
        """Every variable by its full path and by its path without collection, if unambiguous."""
        names: dict[str, list[str]] = {}
        for path in self.variables:
            names.setdefault(path.split("/", 1)[-1], []).append(path)
        short = {name: paths[0] for name, paths in names.items() if len(paths) == 1}
        return {**short, **{path: path for path in self.variables}}

    @cached_property
    def _widths(self) -> dict[str, int]:
        return {name: group.width for name, group in self.groups.items()}

    @cached_property
    def _seed_widths(self) -> dict[str, int]:
        return {name: group.seed_width for name, group in self.groups.items()}

    @cached_property
    def _resized(self) -> frozenset[str]:
        return frozenset(name for name, group in self.groups.items() if not group.unchanged)

    @cached_property
    def _parents(self) -> dict[str, np.ndarray]:
        return {name: np.asarray(group.parents, int) for name, group in self.groups.items()}

    @cached_property
    def _known_positions(self) -> dict[Axis, np.ndarray]:
        return {}


def takes_in(variable: Variable, k: int) -> bool:
    """Whether an axis of a variable consumes channels, which clones have to share."""
    is_own = k in variable.produces and variable.kind != "kernel"
    return k in variable.consumes and not is_own
