"""The rank that a noisy matrix supports: empirical variational Bayes matrix factorization.

Source: Nakajima, Sugiyama, Babacan, Tomioka, "Global analytic solution of fully-observed
variational Bayesian matrix factorization", JMLR 14 (2013), theorem 2 and corollary 2 for EVBMF,
section 4 for the noise variance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, minimize_scalar

from regularizers.errors import InputError

# Singular values below this part of the largest one count as this large: a kernel of float32 does
# not hold less, and without any noise its estimate would be zero and its logarithm infinite.
FLOOR = math.sqrt(np.finfo(np.float64).eps)
GRID = 200  # noise variances that are tried, before the best is refined


@dataclass(frozen=True, kw_only=True)
class Evbmf:
    """What a matrix holds beyond noise.

    Attributes:
        rank: how many components stand out of the noise; 0 for noise alone and for zeros.
        values: their posterior singular values, shrunk by what the noise adds to each.
        noise_variance: of every entry.
        threshold: singular values above it stand out.
    """

    rank: int
    values: NDArray[np.float64]
    noise_variance: float
    threshold: float


def evbmf(singular_values: ArrayLike, rows: int, columns: int) -> Evbmf:
    """The global empirical variational Bayes solution for a matrix of unknown noise.

    The matrix is modelled as B A' plus independent normal noise, with normal priors on A and B
    whose variances are estimated too. The solution needs singular values only; it is the same for
    the transpose, and scales with the matrix.

    Args:
        singular_values: all of them, min(rows, columns), in any order.
        rows: of the matrix.
        columns: of the matrix.

    Raises:
        ValueError: if there are not min(rows, columns) singular values.

    Example:
        >>> evbmf([9.0, 8.0, 0.3, 0.2, 0.1], 5, 8).rank
        2
    """
    small, large = sorted((rows, columns))
    values = np.sort(np.asarray(singular_values, np.float64))[::-1]
    if len(values) != small:
        raise InputError(
            f"a matrix of {rows} x {columns} has {small} singular values, found {len(values)}."
        )
    if small == 0 or values[0] == 0.0:
        return Evbmf(rank=0, values=values[:0], noise_variance=0.0, threshold=0.0)
    scale = values[0]
    relative = np.maximum(values / scale, FLOOR)
    ratio = small / large
    tau = least_tau(ratio)
    least_x = (1.0 + tau) * (1.0 + ratio / tau)  # a component stands out above it
    variance = _noise_variance(relative**2 / large, ratio, least_x)
    threshold = math.sqrt(large * variance * least_x)
    kept = relative[relative > threshold]
    noise = variance / kept**2
    gap = 1.0 - (small + large) * noise
    shrunk = kept / 2.0 * (gap + np.sqrt(gap**2 - 4.0 * small * large * noise**2))
    return Evbmf(
        rank=len(kept),
        values=shrunk * scale,
        noise_variance=variance * scale**2,
        threshold=threshold * scale,
    )


def evbmf_rank(matrix: ArrayLike) -> int:
    """The rank of a matrix beyond its noise; see `evbmf`.

    Example:
        >>> evbmf_rank(np.outer(np.arange(1.0, 9.0), np.arange(1.0, 6.0)))
        1
    """
    found = np.asarray(matrix, np.float64)
    return evbmf(np.linalg.svd(found, compute_uv=False), *found.shape).rank


@lru_cache(maxsize=4096)
def least_tau(ratio: float) -> float:
    """The root of Phi(tau) + Phi(tau / ratio), with Phi(z) = log(1 + z) / z - 1/2 (theorem 2).

    Args:
        ratio: alpha, the shorter side of the matrix by the longer one, in (0, 1].

    Example:
        >>> round(least_tau(1.0), 8), round(least_tau(0.1), 8)
        (2.51286242, 0.82221096)
    """

    def phi(z: float) -> float:
        return math.log1p(z) / z - 0.5

    # Phi falls, and its own root is in (2, 3): the sum is positive at 2 alpha, negative at 3.
    return float(brentq(lambda tau: phi(tau) + phi(tau / ratio), 2.0 * ratio, 3.0, xtol=1e-14))


def _noise_variance(powers: NDArray[np.float64], ratio: float, least_x: float) -> float:
    """The noise variance that minimises the free energy, between its published bounds.

    Args:
        powers: squared singular values by the longer side, falling.
        ratio: alpha.
        least_x: the value of power / variance above which a component stands out.
    """
    small = len(powers)
    most = math.ceil(small / (1.0 + ratio)) - 1  # so many components at most stand out
    upper = powers.sum() / small
    lower = max(powers[most] / least_x, powers[most:].mean())
    if not lower < upper:
        return float(upper)

    def energy(log_variance: float) -> float:
        x = powers / math.exp(log_variance)
        above = x[x > least_x]
        excess = above - (1.0 + ratio)
        tau = 0.5 * (excess + np.sqrt(excess**2 - 4.0 * ratio))
        bent = np.log1p(tau) + ratio * np.log1p(tau / ratio) - tau
        return float((x - np.log(x)).sum() + bent.sum())

    # The free energy has kinks where a component begins to stand out, and so more than one
    # minimum: look everywhere, then refine.
    grid = np.linspace(math.log(lower), math.log(upper), GRID)
    best = int(np.argmin([energy(point) for point in grid]))
    bracket = (grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)])
    refined = minimize_scalar(energy, bounds=bracket, method="bounded", options={"xatol": 1e-10})
    return math.exp(refined.x if refined.fun < energy(grid[best]) else grid[best])
