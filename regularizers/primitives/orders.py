"""Orders of positions, and how they act on what an axis is made of.

An order says for each new position which old one it holds: (2, 0, 1) puts the last one first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

Order: TypeAlias = tuple[int, ...]

MOST_FACTORS = 4  # whose transpositions are tried


def is_order(values: np.ndarray, size: int) -> bool:
    """Whether these are all positions of an axis, each once."""
    return values.shape == (size,) and np.array_equal(np.sort(values), np.arange(size))


def is_identity(order: Sequence[int]) -> bool:
    """Whether everything stays where it is."""
    return all(k == position for k, position in enumerate(order))


def composed(first: Order, second: Sequence[int]) -> Order:
    """The order of doing one after the other."""
    return tuple(first[k] for k in second)


def inverse(order: Sequence[int]) -> Order:
    """The order that takes this one back."""
    return tuple(np.argsort(order).tolist())


def segments(
    sizes: Sequence[int], order: Sequence[int]
) -> list[tuple[tuple[int, ...], Order]] | None:
    """How an order acts on a concatenation: the shortest stretches of it that hold whole parts.

    Returns:
        For each stretch of the result which parts it holds, and the order inside of them; None if
        all parts are mixed with each other.
    """
    starts = np.cumsum([0, *sizes])
    part_of = np.searchsorted(starts, order, side="right") - 1
    found, at = [], 0
    while at < len(order):
        parts, end = {int(part_of[at])}, at
        while end < at + sum(sizes[k] for k in parts):
            parts.add(int(part_of[end]))
            end += 1
        positions = np.concatenate([np.arange(starts[k], starts[k + 1]) for k in sorted(parts)])
        inside = np.searchsorted(positions, order[at:end])
        found.append((tuple(sorted(parts)), tuple(inside.tolist())))
        at = end
    return found if len(found) > 1 or len(sizes) == 1 else None


def transposed(
    sizes: Sequence[int], order: Sequence[int]
) -> tuple[tuple[int, ...], list[Order]] | None:
    """How an order acts on a row-major merge, if it acts on each factor by itself.

    Returns:
        For each factor of the result which factor it is, and for each factor its order.
    """
    if not 1 < len(sizes) <= MOST_FACTORS or math.prod(sizes) != len(order):
        return None
    coordinates = np.unravel_index(np.asarray(order), tuple(sizes))
    for turned in itertools.permutations(range(len(sizes))):
        shape = [sizes[k] for k in turned]
        own: list[Order] = [()] * len(sizes)
        for d, k in enumerate(turned):
            values = np.moveaxis(coordinates[k].reshape(shape), d, 0).reshape(sizes[k], -1)
            if np.any(values != values[:, :1]):
                break
            own[k] = tuple(values[:, 0].tolist())
        else:
            return turned, own
    return None


def arranged(parents: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """Which new positions of an axis come first, second, ... once the seed's are put in order.

    Args:
        parents: for each new position the seed's that it comes from, -1 where it is fresh; what
            has the same one, or none, stays in the order that it has.
        order: of the seed's positions.
    """
    rank = np.append(np.argsort(order), len(order))  # the last one: of what is fresh
    return np.argsort(rank[parents], kind="stable")
