"""What an architecture says of one layer: the axes of its variables, in the seed and now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from morph.architecture.architecture import Architecture
from morph.errors import NativeError
from regularizers.errors import MorphError
from regularizers.primitives import axes as ax
from regularizers.primitives.axes import Axis, Permuted, Product, Sum, make_product


class AbsentError(MorphError, LookupError):
    """A layer does not have the variables that its class has: they are switched off."""


# The attributes of a layer that are widths, from the seed's layer: one row per class of layer.
Row: TypeAlias = Callable[[Any, "LayerWidths"], dict[str, Any]]
# By path: the class of a layer and those of its attributes that no row decides.
Layers: TypeAlias = Mapping[str, tuple[type, Mapping[str, Any]]]
# By path: attributes and their new values.
Changes: TypeAlias = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class LayerWidths:
    """The variables at and under one layer.

    Attributes:
        path: of the layer.
        axes: of each variable, by its path within the layer, e.g. `kernel` or `query/kernel`.
        seed: the width of every group in the seed.
        now: the width of every group now.
    """

    path: str
    axes: Mapping[str, tuple[Axis, ...]]
    seed: Mapping[str, int]
    now: Mapping[str, int]

    def shape(self, *names: str) -> tuple[int, ...]:
        """The shape that the first of these variables that there is has now."""
        return tuple(ax.size(axis, self.now) for axis in self._first(names))

    def seed_shape(self, *names: str) -> tuple[int, ...]:
        """The shape that it has in the seed."""
        return tuple(ax.size(axis, self.seed) for axis in self._first(names))

    def outer(self, n: int, *names: str) -> int:
        """How many stretches the last axis of a variable has now, where the seed's has `n`.

        A kernel's last axis `g x 4` of a convolution in `n = g` feature groups has `g` of them.
        """
        axis = self._first(names)[-1]
        seed = now = 1
        for factor in axis.factors if isinstance(axis, Product) else (axis,):
            if seed == n:
                break
            if isinstance(factor, int) and n % seed == 0 and factor % (n // seed) == 0:
                return now * (n // seed)  # a part of a fixed stretch
            seed *= ax.size(factor, self.seed)
            now *= ax.size(factor, self.now)
        if seed != n:
            raise NativeError(
                f"{self.path!r} has {n} feature groups, but its last axis is {axis}: the groups "
                "have no common width any more"
            )
        return now

    def _first(self, names: Sequence[str]) -> tuple[Axis, ...]:
        for name in names:
            if name in self.axes:
                return self.axes[name]
        raise AbsentError

    def terms(self) -> dict[tuple[str, int, int], Axis]:
        """All parts of all axes that have a width of their own, by where they stand."""
        return {
            (name, k - len(axes), i): part
            for name, axes in self.axes.items()
            for k, axis in enumerate(axes)
            for i, part in enumerate(_parts(axis))
        }


def as_seed(architecture: Architecture) -> Architecture:
    """The architecture with every group as it was in the seed."""
    return architecture.with_parents(
        {name: tuple(range(width)) for name, width in architecture.seed_widths.items()}
    )


def by_layer(architecture: Architecture) -> dict[str, LayerWidths]:
    """For every path at which there are variables, what the architecture says of it."""
    found: dict[str, dict[str, tuple[Axis, ...]]] = {}
    for path, variable in architecture.variables.items():
        parts = path.split("/")[1:]
        for i in range(len(parts)):
            layer = found.setdefault("/".join(parts[:i]), {})
            layer.setdefault("/".join(parts[i:]), variable.axes)
    seed, now = architecture.seed_widths, architecture.widths
    return {
        path: LayerWidths(path=path, axes=axes, seed=seed, now=now) for path, axes in found.items()
    }


def attributes_now(
    rows: Mapping[type, Row], layer: Any, widths: LayerWidths | None
) -> dict[str, Any]:
    """The attributes that follow a layer's variables, by the row of the nearest class it extends.

    A layer that has none, e.g. a norm without scale and shift, keeps its attributes.
    """
    row = next((rows[base] for base in type(layer).__mro__ if base in rows), None)
    if row is None or widths is None:
        return {}
    try:
        return row(layer, widths)
    except AbsentError:
        return {}


def _parts(axis: Axis) -> Iterator[Axis]:
    """The axis, and every run of its factors and each of its parts, over again."""
    yield axis
    match axis:
        case Sum(parts):
            for part in parts:
                yield from _parts(part)
        case Product(factors):
            for i in range(len(factors)):
                for j in range(i + 1, len(factors) + 1):
                    if j - i == 1:
                        yield from _parts(factors[i])
                    elif j - i < len(factors):
                        yield make_product(factors[i:j])
        case Permuted(child):
            yield from _parts(child)
