"""New sizes: what a term of the seed measures at an architecture's widths."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from morph.architecture.architecture import Architecture
from regularizers.primitives import axes as ax
from regularizers.primitives.terms import (
    Atom,
    Axes,
    Permuted,
    Pin,
    Product,
    Sum,
    Term,
    freeze,
    resolve,
)


@dataclass(frozen=True)
class Sizes:
    """The new width of every resized group, and the parent channels of its new channels."""

    seed: Mapping[str, int]
    parents: Mapping[str, np.ndarray]  # int [new width], -1 where fresh

    @classmethod
    def at(cls, architecture: Architecture) -> Sizes:
        """The sizes at the widths of an architecture."""
        groups = architecture.groups
        return cls(
            seed=architecture.seed_widths,
            parents={name: np.asarray(group.parents, int) for name, group in groups.items()},
        )

    @functools.cached_property
    def widths(self) -> dict[str, int]:
        """The new width of every group."""
        return {name: len(parents) for name, parents in self.parents.items()}

    def of(self, term: Term) -> int:
        """The new size of `term`."""
        return int(ax.size(freeze(term), self.widths))

    def shape(self, axes: Axes) -> tuple[int, ...]:
        """The new shape of an array."""
        return tuple(map(self.of, axes))

    def prefix(self, term: Term, n: int) -> int:
        """The new size of what the first `n` seed positions of `term` became."""
        term = resolve(term)
        if n in (0, term.size):
            return self.of(term) if n else 0
        if isinstance(term, Sum):
            total = 0
            for part in term.parts:
                total += self.prefix(part, min(n, part.size))
                n -= min(n, part.size)
            return total
        if isinstance(term, Product):
            outer, *inner = term.factors
            rest = math.prod(factor.size for factor in inner)
            if n % rest == 0:
                return self.prefix(outer, n // rest) * math.prod(map(self.of, inner))
        if self.of(term) != term.size:
            raise AssertionError(f"a resized axis of {term.size} is cut at {n}")
        return n

    def changes(self, term: Term) -> bool:
        """Whether channels along `term` are others than the seed's."""
        return any(
            not np.array_equal(self.parents[name], np.arange(self.seed[name]))
            for name in ax.groups_of(freeze(term))
        )

    def arrangement(self, term: Term, order: Sequence[int]) -> np.ndarray:
        """Which of its positions come first, second, ... where the seed's are put in order."""
        return ax.arrangement(freeze(term), order, self.parents, self.seed)

    def only_kept(self, axes: Axes) -> bool:
        """Whether every channel along `axes` comes from a seed channel of its own."""
        names = {name for term in axes for name in ax.groups_of(freeze(term))}
        return all(
            np.all(self.parents[name] >= 0)
            and len(np.unique(self.parents[name])) == len(self.parents[name])
            for name in names
        )

    def slice(self, value: Any, axes: Axes) -> Any:
        """A value of the seed at the new sizes; a fresh channel repeats the seed's in turn."""
        for k, term in enumerate(axes):
            axis = freeze(term)
            if any(True for _ in ax.groups_of(axis)):
                index = ax.parent_positions(axis, self.parents, self.seed)
                index = np.where(index < 0, np.arange(len(index)) % term.size, index)
                value = value.take(index, axis=k)
        return value


def thaw(axis: ax.Axis, groups: Mapping[str, Atom]) -> Term:
    """`axis` as a term: groups become the given atoms, fixed stretches pinned ones."""
    match axis:
        case int():
            return Atom(axis, Pin("fixed by the architecture"))
        case str():
            return groups[axis]
        case ax.Sum(parts):
            return Sum(thaw(part, groups) for part in parts)
        case ax.Product(factors):
            return Product(thaw(factor, groups) for factor in factors)
        case ax.Permuted(child, order):
            return Permuted(thaw(child, groups), order)
    raise TypeError(f"not an axis: {axis!r}")
