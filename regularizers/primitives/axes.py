"""The vocabulary of widths: what one axis of one array is made of.

Read this file first. After inference every axis of every variable is an `Axis`, one of

* an `int`: a fixed number of positions,
* a `str`: the width of the channel group of that name,
* `Sum(parts)`: a concatenation of axes,
* `Product(factors)`: a row-major merge of axes (`reshape`; the first factor is the outermost),
* `Permuted(axis, order)`: an axis in another order (a gather at constant positions).

An axis is a value: it can be compared, printed, saved as JSON, and evaluated at any widths.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from regularizers.primitives.orders import (
    Order,
    arranged,
    composed,
    is_identity,
    segments,
    transposed,
)


@dataclass(frozen=True)
class Sum:
    """A concatenation of axes, in order."""

    parts: tuple[Axis, ...]

    def __str__(self) -> str:
        return "(" + " + ".join(map(str, self.parts)) + ")"


@dataclass(frozen=True)
class Product:
    """A row-major merge of axes, the outermost first."""

    factors: tuple[Axis, ...]

    def __str__(self) -> str:
        return "(" + " x ".join(map(str, self.factors)) + ")"


@dataclass(frozen=True)
class Permuted:
    """An axis whose positions are in another order: of the seed, position k is `order[k]` of it."""

    axis: Axis
    order: Order

    def __str__(self) -> str:
        reversed_ = self.order == tuple(range(len(self.order)))[::-1]
        return f"{self.axis} {'reversed' if reversed_ else 'shuffled'}"


Axis: TypeAlias = int | str | Sum | Product | Permuted


def make_sum(parts: Sequence[Axis]) -> Axis:
    """The concatenation of `parts` in normal form: flat, neighbouring integers added."""
    flat: list[Axis] = []
    for part in parts:
        for piece in part.parts if isinstance(part, Sum) else (part,):
            if isinstance(piece, int) and flat and isinstance(flat[-1], int):
                flat[-1] += piece
            elif piece != 0:
                flat.append(piece)
    if not flat:
        return 0
    return flat[0] if len(flat) == 1 else Sum(tuple(flat))


def make_product(factors: Sequence[Axis]) -> Axis:
    """The merge of `factors` in normal form: flat, no ones, neighbouring integers multiplied."""
    flat: list[Axis] = []
    for factor in factors:
        for piece in factor.factors if isinstance(factor, Product) else (factor,):
            if isinstance(piece, int) and flat and isinstance(flat[-1], int):
                flat[-1] *= piece
            elif piece != 1:
                flat.append(piece)
    if not flat:
        return 1
    return flat[0] if len(flat) == 1 else Product(tuple(flat))


def make_permuted(axis: Axis, order: Sequence[int]) -> Axis:
    """The axis in another order; a fixed stretch stays one."""
    plain = isinstance(axis, int) or is_identity(order)
    return axis if plain else Permuted(axis, tuple(order))


def groups_of(axis: Axis) -> Iterator[str]:
    """The names of the groups in `axis`, with repetitions, in order."""
    match axis:
        case str():
            yield axis
        case Sum(children) | Product(children):
            for child in children:
                yield from groups_of(child)
        case Permuted(child):
            yield from groups_of(child)


def size(axis: Axis, widths: Mapping[str, Any]) -> Any:
    """The length of `axis` at `widths`; works on integers and on traced scalars alike."""
    match axis:
        case int():
            return axis
        case str():
            return widths[axis]
        case Sum(parts):
            return sum(size(part, widths) for part in parts)
        case Product(factors):
            return math.prod(size(factor, widths) for factor in factors)
        case Permuted(child):
            return size(child, widths)
    raise TypeError(f"not an axis: {axis!r}")


def is_ordered(axis: Axis, widths: Mapping[str, int]) -> bool:
    """Whether all orders in `axis` are as long as what they put in order."""
    match axis:
        case Sum(children) | Product(children):
            return all(is_ordered(child, widths) for child in children)
        case Permuted(child, order):
            return size(child, widths) == len(order) and is_ordered(child, widths)
    return True


def without_empty(axis: Axis, widths: Mapping[str, int]) -> Axis:
    """The axis without the parts of concatenations that measure nothing at `widths`."""
    match axis:
        case Sum(parts):
            return make_sum([without_empty(part, widths) for part in parts if size(part, widths)])
        case Product(factors):
            return make_product([without_empty(factor, widths) for factor in factors])
    return axis


def spread(
    axis: Axis,
    per_channel: Mapping[str, Any],
    fixed: Callable[[int], Any],
    merge: Callable[[Any, Any], Any],
    concatenate: Callable[[Sequence[Any]], Any] = np.concatenate,
) -> Any:
    """One value per position of `axis`, from one value per channel of its groups.

    Args:
        axis: the axis to spread over.
        per_channel: for each group, an array with one entry per channel of the seed.
        fixed: the entries of a fixed stretch of that many positions.
        merge: combines outer [n, 1] with inner [1, m] entries of a merged axis.
        concatenate: joins the entries of parts; JAX's for traced values.
    """
    match axis:
        case int():
            return fixed(axis)
        case str():
            return per_channel[axis]
        case Sum(parts):
            return concatenate(
                [spread(part, per_channel, fixed, merge, concatenate) for part in parts]
            )
        case Product(factors):
            result = spread(factors[0], per_channel, fixed, merge, concatenate)
            for factor in factors[1:]:
                inner = spread(factor, per_channel, fixed, merge, concatenate)
                result = merge(result[:, None], inner[None, :]).reshape(-1)
            return result
        case Permuted(child, order):
            return spread(child, per_channel, fixed, merge, concatenate)[np.asarray(order)]
    raise TypeError(f"not an axis: {axis!r}")


def alive_positions(axis: Axis, alive: Mapping[str, np.ndarray]) -> np.ndarray:
    """Bool [length]: which positions of `axis` belong to alive channels only."""
    return spread(axis, alive, lambda n: np.ones(n, bool), np.logical_and)


def parent_positions(
    axis: Axis, parents: Mapping[str, np.ndarray], widths: Mapping[str, int]
) -> np.ndarray:
    """For each position of the resized axis, the position of the seed axis it comes from.

    Args:
        axis: an axis over groups.
        parents: for each group, the parent channel of each new channel; -1 where it is fresh.
        widths: the seed width of each group.

    Returns:
        int [new length], -1 where the position has no parent.
    """
    match axis:
        case int():
            return np.arange(axis)
        case str():
            return np.asarray(parents[axis])
        case Sum(parts):
            offsets = np.cumsum([0, *(size(part, widths) for part in parts)])
            pieces = [parent_positions(part, parents, widths) for part in parts]
            return np.concatenate(
                [np.where(p < 0, -1, p + o) for p, o in zip(pieces, offsets, strict=False)]
            )
        case Product(factors):
            result = parent_positions(factors[0], parents, widths)
            for factor in factors[1:]:
                inner = parent_positions(factor, parents, widths)
                outer = result[:, None]
                merged = outer * size(factor, widths) + inner[None, :]
                result = np.where((outer < 0) | (inner[None, :] < 0), -1, merged).reshape(-1)
            return result
        case Permuted(child, order):
            own = parent_positions(child, parents, widths)
            rank = np.append(np.argsort(order), -1)
            return rank[own[arrangement(child, order, parents, widths)]]
    raise TypeError(f"not an axis: {axis!r}")


def arrangement(
    axis: Axis, order: Sequence[int], parents: Mapping[str, np.ndarray], widths: Mapping[str, int]
) -> np.ndarray:
    """The positions of a resized axis, in the order that the seed's are put into.

    Args:
        axis: an axis over groups.
        order: of its seed's positions.
        parents: for each group, the parent channel of each new channel; -1 where it is fresh.
        widths: the seed width of each group.
    """
    own = parent_positions(axis, parents, widths)
    if is_identity(order):
        return np.arange(len(own))
    match axis:
        case Permuted(child, before):
            old = arrangement(child, before, parents, widths)
            new = arrangement(child, composed(before, order), parents, widths)
            return np.argsort(old)[new]
        case Sum(parts):
            found = segments([size(part, widths) for part in parts], order)
            if found is not None:
                lengths = [len(parent_positions(part, parents, widths)) for part in parts]
                each = np.split(np.arange(sum(lengths)), np.cumsum(lengths)[:-1])
                return np.concatenate(
                    [
                        np.concatenate([each[k] for k in mixed])[
                            arrangement(
                                make_sum([parts[k] for k in mixed]), inside, parents, widths
                            )
                        ]
                        for mixed, inside in found
                    ]
                )
        case Product(factors):
            turned = transposed([size(factor, widths) for factor in factors], order)
            if turned is not None:
                each = [
                    arrangement(factor, inside, parents, widths)
                    for factor, inside in zip(factors, turned[1], strict=True)
                ]
                positions = np.arange(len(own)).reshape([len(new) for new in each])
                return positions[np.ix_(*each)].transpose(turned[0]).reshape(-1)
    return arranged(own, order)


def to_json(axis: Axis) -> Any:
    """`axis` as JSON: an integer, a string, or an object.

    That is `{"sum": [...]}`, `{"product": [...]}` or `{"permuted": axis, "order": [...]}`.
    """
    match axis:
        case Sum(parts):
            return {"sum": [to_json(part) for part in parts]}
        case Product(factors):
            return {"product": [to_json(factor) for factor in factors]}
        case Permuted(child, order):
            return {"permuted": to_json(child), "order": list(order)}
    return axis


def from_json(data: Any) -> Axis:
    """The inverse of `to_json`."""
    if isinstance(data, dict):
        if "sum" in data:
            return Sum(tuple(from_json(part) for part in data["sum"]))
        if "permuted" in data:
            return Permuted(from_json(data["permuted"]), tuple(map(int, data["order"])))
        return Product(tuple(from_json(factor) for factor in data["product"]))
    return data if isinstance(data, str) else int(data)  # 5.0 is an integer in JSON
