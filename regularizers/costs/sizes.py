"""Amounts that are multilinear in widths, evaluated all at once.

The size of an axis is a sum of monomials of widths, an amount a sum of products of axis sizes.
Evaluation is a few gathers and segment sums, whatever the size of the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from regularizers.primitives import axes as ax
from regularizers.primitives.axes import Axis

Term: TypeAlias = tuple[float, tuple[Axis, ...]]  # a coefficient x the sizes of some axes


@dataclass(frozen=True, kw_only=True)
class Table:
    """Products of some entries of a vector, scaled, and added up by owner.

    Attributes:
        index: int [R, F] into the vector, padded with its length, which stands for a one.
        scale: [R].
        owner: int [R]: the sum that a product is an addend of.
        sums: how many sums there are.
    """

    index: np.ndarray
    scale: np.ndarray
    owner: np.ndarray
    sums: int

    @classmethod
    def of(cls, sums: Sequence[Iterable[tuple[float, Sequence[int]]]], fill: int) -> Table:
        """From, for each sum, its (scale, indices); `fill` is the length of the vector."""
        rows = [(owner, *term) for owner, terms in enumerate(sums) for term in terms]
        most = max([1, *(len(indices) for _, _, indices in rows)])
        padded = [[*indices, *[fill] * (most - len(indices))] for _, _, indices in rows]
        return cls(
            index=np.asarray(padded, np.int64).reshape(-1, most),
            scale=np.asarray([scale for _, scale, _ in rows], np.float64),
            owner=np.asarray([owner for owner, _, _ in rows], np.int64),
            sums=len(sums),
        )

    def __call__(self, values: Any) -> Any:
        """The sums [sums] at a vector, which numpy counts in float64 and JAX in float32."""
        if not isinstance(values, jax.Array):
            factors = np.append(values, 1.0)[self.index]
            return np.bincount(self.owner, self._products(factors), self.sums)
        padded = jax.lax.pad(values, jnp.ones((), values.dtype), [(0, 1, 0)])
        products = self._products(padded.at[self.index].get(mode="promise_in_bounds"))
        if np.array_equal(self.owner, np.arange(self.sums)):  # one addend each
            return products
        return jax.ops.segment_sum(products, self.owner, num_segments=self.sums)

    def _products(self, factors: Any) -> Any:
        result = self.scale.astype(factors.dtype)
        for k in range(factors.shape[1]):
            result = result * factors[:, k]
        return result


@dataclass(kw_only=True)
class AxisSizes:
    """The sizes of axes as a function of widths. Axes are collected first, by `slot`."""

    groups: Sequence[str]
    _slots: dict[Axis, int] = field(default_factory=dict)

    def slot(self, axis: Axis) -> int:
        """The place of an axis in the vector of sizes."""
        return self._slots.setdefault(axis, len(self._slots))

    def table(self) -> Table:
        """From widths [groups] to the sizes of all axes collected so far."""
        position = {name: i for i, name in enumerate(self.groups)}
        sums = [
            [(scale, [position[name] for name in names]) for scale, names in monomials(axis)]
            for axis in self._slots
        ]
        return Table.of(sums, len(position))

    def amounts(self, sums: Sequence[Iterable[Term]]) -> Table:
        """From the sizes of axes to sums of terms. No further axis may be collected after it.

        Where several tables share the sizes, collect the axes of all of them first.
        """
        indexed = [[(c, [self.slot(a) for a in axes]) for c, axes in terms] for terms in sums]
        return Table.of(indexed, len(self._slots))


def monomials(axis: Axis) -> list[tuple[float, tuple[str, ...]]]:
    """The size of an axis as a sum of monomials: (coefficient, group names)."""
    match axis:
        case int():
            return [(float(axis), ())]
        case str():
            return [(1.0, (axis,))]
        case ax.Sum(parts):
            return [monomial for part in parts for monomial in monomials(part)]
        case ax.Product(factors):
            result = []
            for choice in product(*map(monomials, factors)):
                coefficient = float(np.prod([c for c, _ in choice]))
                result.append((coefficient, tuple(name for _, names in choice for name in names)))
            return result
        case ax.Permuted(child):
            return monomials(child)
    raise TypeError(f"not an axis: {axis!r}")


def named_amounts(
    groups: Sequence[str], amounts: Mapping[str, Sequence[Iterable[Term]]]
) -> tuple[Table, dict[str, Table]]:
    """The table of axis sizes, and for each name the table of its amounts over them."""
    sizes = AxisSizes(groups=groups)
    listed = {name: [list(terms) for terms in sums] for name, sums in amounts.items()}
    for sums in listed.values():
        for terms in sums:
            for _, axes in terms:
                for axis in axes:
                    sizes.slot(axis)
    return sizes.table(), {name: sizes.amounts(sums) for name, sums in listed.items()}
