"""Which part of what an activation spans is worth its 8 bits.

Between the least and the largest value nothing is cut off, but a rare one makes every step of the
others larger. A narrower range, by the least mean square of what rounding and cutting off take,
often is closer; which of both is has to be tried. What no product follows are outputs, whose
largest numbers count: nothing of these is cut off.

Source: Banner et al. 2019, "Post training 4-bit quantization of convolutional networks for
rapid-deployment" (the mean square of clipping and rounding).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np

Ranges: TypeAlias = Mapping[str, tuple[float, float]]  # by the name of a value
COUNTED = 32  # examples whose numbers are counted
BINS = 2048
SHARES = np.linspace(1.0, 0.1, 46)  # of the way from 0 to an end
ROUNDS = 3
STEPS = 255


def narrowed(ranges: Ranges, values: Iterable[Mapping[str, Any]]) -> Ranges:
    """Parts of ranges that lose least.

    Args:
        ranges: the least and the largest value.
        values: those of some examples, by name, one part after another.
    """
    counts: dict[str, np.ndarray] = {}
    for own in values:
        for name, value in own.items():
            low, high = ranges[name]
            if high > low:
                found, _ = np.histogram(value, BINS, (low, high))
                counts[name] = counts.get(name, 0) + found
    return {
        name: _best(counts[name], *own) if name in counts else own for name, own in ranges.items()
    }


def before(
    operations: Iterable[tuple[bool, Iterable[str], Iterable[str]]],
) -> set[str]:
    """The values that a product follows, near or far.

    Args:
        operations: in order: whether it is a product, what it takes, and what it gives.
    """
    found: set[str] = set()
    for product, takes, gives in reversed(list(operations)):
        if product or found.intersection(gives):
            found.update(takes)
    return found


def spread(total: int, count: int) -> np.ndarray:
    """The places of so many of all, or of fewer, far from each other."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).astype(int))


def _best(counts: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """The ends that lose least, found in turns; 0 lies between them."""
    centers = low + (np.arange(len(counts)) + 0.5) * (high - low) / len(counts)

    def lost(low: float, high: float) -> float:
        cut = centers - np.clip(centers, min(low, 0.0), max(high, 0.0))
        step = (max(high, 0.0) - min(low, 0.0)) / STEPS
        return float(np.sum(counts * (cut**2 + step**2 / 12)))

    lows, highs = low * SHARES, high * SHARES
    for _ in range(ROUNDS):
        high = min(highs, key=lambda own: lost(low, own))
        low = min(lows, key=lambda own: lost(own, high))
    return float(low), float(high)
