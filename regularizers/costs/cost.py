"""A cost: one number, as a differentiable function of widths.

A multilinear cost is a sum of rows, each a coefficient times the sizes of some axes. `jax.grad`
of it is MorphNet's coefficient, and `jax.jvp(cost, alive, strengths)` is exactly its
regularization term C (A_in R_out + A_out R_in) (Gordon et al. 2018, eq. 4): there is no second
formula.

Evaluation is two gathers and a segment sum, whatever the size of the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from regularizers.channels import axes as ax
from regularizers.channels.axes import Axis
from regularizers.channels.graph import ChannelGraph, near


@dataclass(frozen=True, kw_only=True)
class Row:
    """One addend: coefficient x the sizes of `factors`."""

    layer: str
    detail: str
    coefficient: float
    factors: tuple[Axis, ...]


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One line of `Cost.table()`."""

    layer: str
    detail: str
    cost: float
    share: float  # of the total


class CostTable(tuple[LayerCost, ...]):
    """The rows of a cost per layer; prints as a table."""

    unit: str = ""

    def __str__(self) -> str:
        layer = max([5, *(len(row.layer) for row in self)])
        detail = max([6, *(len(row.detail) for row in self)])
        lines = [f"{'layer':<{layer}}  {'detail':<{detail}}  {self.unit:>16}   share"]
        lines += [
            f"{r.layer:<{layer}}  {r.detail:<{detail}}  {r.cost:>16,.0f}  {r.share:6.1%}"
            for r in self
        ]
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True, eq=False)  # compared by identity, so that `jit(cost)` works
class Cost:
    """A multilinear function of the widths of a graph's groups.

    Attributes:
        name: what it counts, e.g. `flops`.
        unit: its unit, e.g. `FLOP`.
        groups: the groups whose widths it takes, in order, with their seed widths.
        rows: its addends.

    Example:
        >>> cost = flops(graph)                                          # doctest: +SKIP
        >>> cost(), cost({"Conv_0": 8}), jax.grad(cost)({"Conv_0": 8.0})  # doctest: +SKIP
    """

    name: str
    unit: str
    groups: Mapping[str, int]
    rows: tuple[Row, ...] = field(repr=False)

    def __call__(self, widths: Mapping[str, Any] | None = None) -> Any:
        """The cost at `widths`; groups not named keep their seed width.

        Args:
            widths: {group: number}. Python and numpy numbers are counted exactly, in float64;
                JAX arrays give a differentiable JAX scalar.

        Raises:
            KeyError: if a group is unknown. ValueError: if a width is negative.
        """
        return self.of_vector(self.vector(widths))

    def vector(self, widths: Mapping[str, Any] | None = None) -> Any:
        """Widths as one vector [groups], in the order of `groups`."""
        given = dict(widths or {})
        for name, width in given.items():
            if name not in self.groups:
                raise KeyError(f"no channel group {name!r}{near(name, self.groups)}")
            if not isinstance(width, jax.Array) and not width >= 0:
                raise ValueError(f"the width of {name!r} must be at least 0, found {width}")
        values = [given.get(name, seed) for name, seed in self.groups.items()]
        if any(isinstance(value, jax.Array) for value in values):
            return jnp.stack([jnp.asarray(value, float) for value in values])
        return np.asarray(values, np.float64)

    def of_vector(self, widths: Any) -> Any:
        """The cost at widths [groups]; the form for inner loops."""
        total = self.per_row(widths).sum()
        return total if isinstance(total, jax.Array) else float(total)

    def per_row(self, widths: Any) -> Any:
        """The cost of every row [rows] at widths [groups]."""
        index = self._index
        sizes = _products(widths, index.monomials, index.coefficients)
        if isinstance(sizes, jax.Array):
            sizes = jax.ops.segment_sum(sizes, index.owner, num_segments=index.axes)
        else:
            sizes = np.bincount(index.owner, weights=sizes, minlength=index.axes)
        return _products(sizes, index.factors, index.scale)

    def table(self, widths: Mapping[str, Any] | None = None) -> CostTable:
        """The cost per layer at `widths` (numbers), in the order of the network."""
        values = self.per_row(self.vector(widths))
        total = float(values.sum()) or 1.0
        merged: dict[tuple[str, str], float] = {}
        for row, value in zip(self.rows, values, strict=True):
            key = row.layer, row.detail
            merged[key] = merged.get(key, 0.0) + float(value)
        table = CostTable(
            LayerCost(layer=layer, detail=detail, cost=value, share=value / total)
            for (layer, detail), value in merged.items()
        )
        table.unit = self.unit
        return table

    @cached_property
    def _index(self) -> _Index:
        position = {name: i for i, name in enumerate(self.groups)}
        slots: dict[Axis, int] = {}
        factors = [[slots.setdefault(axis, len(slots)) for axis in r.factors] for r in self.rows]
        monomials: list[list[int]] = []
        coefficients: list[float] = []
        owner: list[int] = []
        for axis, slot in slots.items():
            for coefficient, names in expand(axis):
                monomials.append([position[name] for name in names])
                coefficients.append(coefficient)
                owner.append(slot)
        return _Index(
            monomials=_padded(monomials, len(self.groups)),
            coefficients=np.asarray(coefficients, np.float64),
            owner=np.asarray(owner, np.int64),
            axes=len(slots),
            factors=_padded(factors, len(slots)),
            scale=np.asarray([row.coefficient for row in self.rows], np.float64),
        )


@dataclass(frozen=True, kw_only=True)
class _Index:
    """A cost as arrays: sizes of axes are sums of monomials of widths, rows products of sizes."""

    monomials: np.ndarray  # int [M, D] into widths, padded with the index of a one
    coefficients: np.ndarray  # [M]
    owner: np.ndarray  # int [M]: the axis that a monomial is an addend of
    axes: int
    factors: np.ndarray  # int [R, F] into axes, padded with the index of a one
    scale: np.ndarray  # [R]


def expand(axis: Axis) -> list[tuple[float, tuple[str, ...]]]:
    """The size of an axis as a sum of monomials: (coefficient, group names)."""
    match axis:
        case int():
            return [(float(axis), ())]
        case str():
            return [(1.0, (axis,))]
        case ax.Sum(parts):
            return [monomial for part in parts for monomial in expand(part)]
        case ax.Product(factors):
            result = []
            for choice in product(*map(expand, factors)):
                coefficient = float(np.prod([c for c, _ in choice]))
                result.append((coefficient, tuple(name for _, names in choice for name in names)))
            return result
    raise TypeError(f"not an axis: {axis!r}")


def _padded(rows: Sequence[Sequence[int]], fill: int) -> np.ndarray:
    length = max([1, *map(len, rows)])
    return np.asarray([[*row, *[fill] * (length - len(row))] for row in rows], np.int64).reshape(
        -1, length
    )


def _products(values: Any, index: np.ndarray, scale: np.ndarray) -> Any:
    """scale x the products of the values at `index` [R, F], where one past the end is a one."""
    xp = jnp if isinstance(values, jax.Array) else np
    padded = xp.concatenate([values, xp.ones(1, values.dtype)])
    result = xp.asarray(scale, values.dtype)
    for column in index.T:
        result = result * padded[column]
    return result


def cost_of(graph: ChannelGraph, name: str, unit: str, rows: Sequence[Row]) -> Cost:
    """A cost over all groups of `graph`."""
    return Cost(name=name, unit=unit, groups=graph.widths, rows=tuple(rows))
