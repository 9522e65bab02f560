"""Sparse positions as gaps of a few bits (Han et al. 2016, figure 2).

A gap is the distance from one kept weight to the next, less one. One that does not fit in the bits
is bridged by fillers: zeros that are stored as if they were kept, each a largest gap away.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Integer

from morph.errors import ContainerError

WIDEST = 12  # bits of a gap


def to_gaps(
    positions: Integer[np.ndarray, " n"], bits: int
) -> tuple[Integer[np.ndarray, " m"], Bool[np.ndarray, " m"]]:
    """The gaps before positions, and which of them end at a filler.

    Args:
        positions: increasing.
        bits: of a gap: gaps are at most 2**bits - 1.

    Example:
        >>> gaps, filler = to_gaps(np.array([1, 4, 15]), 3)
        >>> gaps.tolist(), filler.tolist()
        ([1, 2, 7, 2], [False, False, True, False])
    """
    longest = 1 << bits
    distances = np.diff(positions, prepend=-1) - 1  # zeros before every position
    fillers = distances // longest
    ends = np.cumsum(fillers + 1)
    gaps = np.full(ends[-1] if len(ends) else 0, longest - 1, np.int64)
    filler = np.ones(len(gaps), bool)
    gaps[ends - 1] = distances % longest
    filler[ends - 1] = False
    return gaps, filler


def from_gaps(gaps: Integer[np.ndarray, " m"], size: int) -> Integer[np.ndarray, " n"]:
    """The positions after gaps, those of fillers included.

    Args:
        gaps: non-negative.
        size: positions are smaller.

    Raises:
        ContainerError: if they are not.
    """
    positions = np.cumsum(gaps.astype(np.int64) + 1) - 1
    if len(positions) and positions[-1] >= size:
        raise ContainerError(f"a position is {positions[-1]} in a kernel of {size} weights")
    return positions
