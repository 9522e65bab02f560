"""A cost: one number, as a differentiable function of widths.

FLOPs and parameters are multilinear in widths, so that `jax.grad` of a cost is MorphNet's
coefficient, and `jax.jvp(cost, alive, strengths)` is exactly its regularization term
C (A_in R_out + A_out R_in) (Gordon et al. 2018, eq. 4): there is no second formula. Latencies have
steps and corners; those have two forms, written once (see `form`): `cost(widths)` is exact,
`cost.smooth(widths)` is for gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Real
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from regularizers.checks import a, number, shown
from regularizers.costs.form import EXACT, SMOOTH, Form
from regularizers.costs.sizes import Term, named_amounts
from regularizers.errors import InputError, InputTypeError, UnknownNameError
from regularizers.messages import near

Amounts: TypeAlias = Callable[[Any, Form], Any]  # (widths [groups], form) -> costs [lines]
WIDTH = number()
SEEDS = "x seed"  # the unit of a sum of different units

# What is shown with a prefix that suits the number; everything else is shown in full.
_SCALED = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")),
    "J": ((1.0, "J"), (1e-3, "mJ"), (1e-6, "uJ")),
}


@dataclass(frozen=True, kw_only=True)
class Line:
    """What one entry of a cost belongs to: a layer, and the detail of it, e.g. `conv 3x3`."""

    layer: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One line of `Cost.table()`: a cost in the unit of the table, and its share of the total."""

    layer: str
    detail: str
    cost: float
    share: float


class CostTable(tuple[LayerCost, ...]):
    """What every layer costs; prints as a table."""

    unit: str = ""

    def __str__(self) -> str:
        layer = max([5, *(len(row.layer) for row in self)])
        detail = max([6, *(len(row.detail) for row in self)])
        scale, unit, digits = scaled(max([0.0, *(row.cost for row in self)]), self.unit)
        lines = [f"{'layer':<{layer}}  {'detail':<{detail}}  {unit:>16}   share"]
        lines += [
            f"{r.layer:<{layer}}  {r.detail:<{detail}}  {r.cost / scale:>16,.{digits}f}  "
            f"{r.share:6.1%}"
            for r in self
        ]
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True, eq=False)  # compared by identity, so that `jit(cost)` works
class Cost:
    """A function of the widths of a graph's groups. Costs add up: `0.5 * flops + 0.5 * size`.

    A sum of costs of one unit is in that unit. In a sum of different units every cost counts as a
    ratio to its seed's: `0.5 * reg.flops(graph) + 0.5 * reg.latency(graph, "edge_tpu")` is 1 for
    the seed.

    Attributes:
        name: what it counts, e.g. `flops`.
        unit: its unit, e.g. `FLOP`, `B`, `s`.
        groups: the groups whose widths it takes, in order, with their seed widths.
        lines: what its addends belong to.
        amounts: (widths [groups], form) -> [lines], which add up to the cost.
        terms: of a sum: weights and costs.

    Example:
        >>> cost = flops(graph)                                          # doctest: +SKIP
        >>> cost(), cost({"Conv_0": 8}), jax.grad(cost)({"Conv_0": 8.0})  # doctest: +SKIP
    """

    name: str
    unit: str
    groups: Mapping[str, int]
    lines: tuple[Line, ...] = field(repr=False)
    amounts: Amounts = field(repr=False)
    terms: tuple[tuple[float, Cost], ...] = field(default=(), repr=False)

    def __call__(self, widths: Mapping[str, Any] | None = None) -> Any:
        """The cost at `widths`, exactly; groups not named keep their seed width.

        Args:
            widths: {group: whole number}. Python and numpy numbers are counted in float64; JAX
                arrays give a differentiable JAX scalar.

        Raises:
            KeyError: if a group is unknown.
            ValueError: if a width is negative, or a fraction.
        """
        return self.of_vector(self.vector(widths, whole=True))

    def smooth(self, widths: Mapping[str, Any] | None = None) -> Any:
        """The cost at `widths` without its steps and corners; widths may be fractions.

        Raises:
            KeyError: if a group is unknown. ValueError: if a width is negative.
        """
        return self.of_vector(self.vector(widths), SMOOTH)

    def vector(self, widths: Mapping[str, Any] | None = None, *, whole: bool = False) -> Any:
        """Widths as one vector [groups], in the order of `groups`, checked."""
        if not isinstance(widths, Mapping | None):
            raise InputTypeError(f"widths must be numbers by channel group, found {shown(widths)}")
        given = dict(widths or {})
        for name, width in given.items():
            if name not in self.groups:
                raise UnknownNameError(f"no channel group {name!r}{near(name, self.groups)}")
            if isinstance(width, jax.core.Tracer):
                continue
            if not WIDTH.kind(width):
                raise InputTypeError(
                    f"the width of {name!r} must be a number, found {shown(width)}"
                )
            if not 0 <= width < math.inf:
                raise InputError(f"the width of {name!r} must be at least 0, found {width}")
            if whole and not isinstance(width, jax.Array) and width != int(width):
                raise InputError(
                    f"the width of {name!r} must be a whole number, found {width}; "
                    "cost.smooth(widths) takes fractions"
                )
        values = [given.get(name, seed) for name, seed in self.groups.items()]
        if any(isinstance(value, jax.Array) for value in values):
            return jnp.stack([jnp.asarray(value, float) for value in values])
        return np.asarray(values, np.float64)

    def of_vector(self, widths: Any, form: Form = EXACT) -> Any:
        """The cost at widths [groups]; for inner loops, unchecked."""
        total = self.amounts(widths, form).sum()
        return total if isinstance(total, jax.Array) else float(total)

    def marginal(self, widths: Any) -> Float[Array, " groups"]:
        """d cost / d width at widths [groups], by the smooth form."""
        return self._gradient(jnp.asarray(widths, jnp.float32))

    @cached_property
    def _gradient(self) -> Callable[[Any], Any]:
        return jax.jit(jax.grad(lambda widths: self.of_vector(widths, SMOOTH)))

    @cached_property
    def seed(self) -> float:
        """The seed's cost."""
        return float(self())

    def table(self, widths: Mapping[str, Any] | None = None) -> CostTable:
        """The cost per layer at `widths` (numbers), in the order of the network."""
        values = np.asarray(self.amounts(self.vector(widths, whole=True), EXACT))
        total = float(values.sum()) or 1.0
        merged: dict[Line, float] = {}
        for line, value in zip(self.lines, values, strict=True):
            merged[line] = merged.get(line, 0.0) + float(value)
        table = CostTable(
            LayerCost(layer=line.layer, detail=line.detail, cost=value, share=value / total)
            for line, value in merged.items()
        )
        table.unit = self.unit
        return table

    def without(self, groups: Collection[str]) -> Cost:
        """The cost where some groups have no channels; it does not take their widths."""
        names = list(self.groups)
        left = np.asarray([i for i, name in enumerate(names) if name not in groups], int)

        def amounts(widths: Any, form: Form) -> Any:
            if isinstance(widths, jax.Array):
                return self.amounts(jnp.zeros(len(names), widths.dtype).at[left].set(widths), form)
            every = np.zeros(len(names))
            every[left] = widths
            return self.amounts(every, form)

        seeds = {names[i]: self.groups[names[i]] for i in left}
        return replace(self, groups=seeds, amounts=amounts, terms=())

    def of_layers(self, *layers: str) -> Cost:
        """What some layers cost.

        Raises:
            KeyError: if nothing is booked on one of them; the message lists near matches.
        """
        known = {line.layer for line in self.lines}
        for layer in layers:
            if layer not in known:
                raise UnknownNameError(
                    f"{self.name} counts nothing for {layer!r}{near(layer, known)}"
                )
        chosen = np.asarray([k for k, line in enumerate(self.lines) if line.layer in layers])
        return replace(
            self,
            name=f"{self.name} of {', '.join(layers)}",
            lines=tuple(self.lines[k] for k in chosen),
            amounts=lambda widths, form: self.amounts(widths, form)[chosen],
            terms=(),
        )

    def show(self, value: float) -> str:
        """A cost in words, e.g. `1.250 ms`."""
        scale, unit, digits = scaled(value, self.unit)
        return f"{value / scale:,.{digits}f} {unit}"

    def __str__(self) -> str:
        return f"{self.name}: {self.show(self.seed)}"

    def __add__(self, other: Any) -> Cost:
        if not isinstance(other, Cost):
            return NotImplemented
        return weighted([*self._weighted, *other._weighted])

    def __radd__(self, other: Any) -> Cost:
        return self if isinstance(other, int) and other == 0 else NotImplemented  # for sum()

    def __mul__(self, weight: Any) -> Cost:
        factor = float(weight) if isinstance(weight, Real) else math.nan
        if not 0.0 <= factor < math.inf:
            raise InputError(f"a weight of a cost must be a number of at least 0, found {weight!r}")
        return weighted([(factor * own, cost) for own, cost in self._weighted])

    __rmul__ = __mul__

    @property
    def _weighted(self) -> tuple[tuple[float, Cost], ...]:
        return self.terms or ((1.0, self),)


COST = a(Cost, "a cost, e.g. reg.flops(graph)")


def weighted(terms: Sequence[tuple[float, Cost]]) -> Cost:
    """The weighted sum of costs of one graph; see `Cost` for its unit.

    Raises:
        ValueError: if they are of different graphs, or a seed costs nothing where units differ.
    """
    first = terms[0][1]
    for _, cost in terms:
        if [*cost.groups.items()] != [*first.groups.items()]:  # vectors of widths have an order
            raise InputError(
                f"cannot add {cost.name} to {first.name}: they are costs of different graphs"
            )
    same = all(cost.unit == first.unit for _, cost in terms)
    for _, cost in terms:
        if not same and not cost.seed > 0.0:
            raise InputError(
                f"cannot add {cost.name} to a cost of another unit: its seed costs {cost.seed:g}"
            )
    factors = [weight if same else weight / cost.seed for weight, cost in terms]

    def amounts(widths: Any, form: Form) -> Any:
        parts = [
            f * cost.amounts(widths, form) for f, (_, cost) in zip(factors, terms, strict=True)
        ]
        return (jnp if isinstance(widths, jax.Array) else np).concatenate(parts)

    alone = len(terms) == 1
    return Cost(
        name=" + ".join(f"{weight:g} {cost.name}" for weight, cost in terms),
        unit=first.unit if same else SEEDS,
        groups=first.groups,
        lines=tuple(
            line if alone else replace(line, detail=f"{cost.name}: {line.detail}")
            for _, cost in terms
            for line in cost.lines
        ),
        amounts=amounts,
        terms=tuple(terms),
    )


def multilinear(
    groups: Mapping[str, int], name: str, unit: str, addends: Sequence[tuple[Line, Term]]
) -> Cost:
    """A cost that is a sum of coefficients times the sizes of axes.

    Args:
        groups: whose widths it is a function of, with their seed widths.
        name: what it counts.
        unit: its unit.
        addends: (what it belongs to, (coefficient, axes)).
    """
    sizes, tables = named_amounts(list(groups), {name: [[term] for _, term in addends]})
    return Cost(
        name=name,
        unit=unit,
        groups=groups,
        lines=tuple(line for line, _ in addends),
        amounts=lambda widths, form: tables[name](sizes(widths)),
    )


def scaled(value: float, unit: str) -> tuple[float, str, int]:
    """How to show an amount: what to divide it by, the unit then, and how many decimals."""
    for scale, prefixed in _SCALED.get(unit, ()):
        if value >= scale or scale == _SCALED[unit][-1][0]:
            return scale, prefixed, 3
    return 1.0, unit, 4 if unit == SEEDS else 0
