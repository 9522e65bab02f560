"""Factor shapes: how a width is written as a product, so that a matrix becomes a tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache


@lru_cache(maxsize=4096)
def balanced_factors(n: int, count: int) -> tuple[int, ...]:
    """`count` factors of `n`, as equal as they come, the largest first.

    Of all ways to write `n` as such a product it is one with the least sum, since the cores of a
    tensor train grow with it. A prime leaves ones: 17 in two factors is 17 x 1.

    Args:
        n: at least 1.
        count: at least 1.

    Example:
        >>> balanced_factors(784, 4), balanced_factors(300, 3), balanced_factors(17, 2)
        ((7, 7, 4, 4), (10, 6, 5), (17, 1))
    """
    if count == 1:
        return (n,)
    best: tuple[int, ...] = ()
    for first in divisors(n):
        if first**count < n:
            continue  # the largest of `count` factors is at least the root
        rest = balanced_factors(n // first, count - 1)
        if rest[0] <= first and (not best or (first + sum(rest)) < sum(best)):
            best = (first, *rest)
    return best


def divisors(n: int) -> list[int]:
    """All divisors, in order."""
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return sorted({*small, *(n // d for d in small)})


def split_axes(lengths: Sequence[int], count: int) -> list[tuple[int, ...]]:
    """Factors of several axes, `count` in all; every axis gets at least one.

    The axis whose factors are the largest gets the next one.

    Example:
        >>> split_axes([12, 32], 3)
        [(12,), (8, 4)]
    """
    counts = [1] * len(lengths)
    for _ in range(count - len(lengths)):
        largest = [balanced_factors(n, k)[0] for n, k in zip(lengths, counts, strict=True)]
        counts[largest.index(max(largest))] += 1
    return [balanced_factors(n, k) for n, k in zip(lengths, counts, strict=True)]
