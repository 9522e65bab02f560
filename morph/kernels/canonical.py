"""CP: a tensor as a sum of rank-one tensors, by alternating least squares from several starts.

There is no best CP of some rank in general, and ALS stops at whatever is near its start (Kolda and
Bader 2009). What keeps it from bad ends:

- axes are cut to the subspaces that the tensor uses, or components begin where it is zero, become
  zero, and stay so;
- it starts from leading singular vectors, from the eigenvectors of mixed slices (exact where the
  rank fits two axes: Leurgans, Ross and Abel 1993, "A decomposition for three-way arrays"), and
  from random numbers; the best ends go on;
- a ridge of what rounding would lose keeps components from growing against each other, where a
  lower border rank lets them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import tensorly
from numpy.typing import NDArray
from tensorly.cp_tensor import CPTensor
from tensorly.decomposition import parafac

from morph.kernels.spectra import matrix_spectrum

Array = NDArray[np.float64]

ROUNDS = ((20, 12), (80, 4), (400, 2))  # iterations of ALS, from so many of the best
DEAR_ROUNDS = ((20, 4), (80, 2), (100, 1))  # of large kernels
DEAR = 1 << 18  # numbers of the kernel times the rank: they are large
FEW = 3  # starts of a quick look: where iterations are bounded
TOLERANCE = 1e-8  # of the norm, from one iteration to the next
RIDGE = 1e-10  # of the squared norm, at least
EXACT = 1e-7  # of the norm: nothing better is sought
NOTHING = 1e-7  # of the largest singular value: a direction that the tensor does not use


def canonical(array: Array, rank: int, *, eps: float, iterations: int | None = None) -> list[Array]:
    """One factor [length, rank] for every axis.

    Args:
        array: finite.
        rank: at least 1.
        eps: the relative rounding of the factors in the end.
        iterations: at most so many, from few starts.
    """
    norm = float(np.linalg.norm(array))
    if norm == 0.0:
        return _trainable([np.zeros((n, rank)) for n in array.shape])
    bases = [_used(array, k, eps) for k in range(array.ndim)]
    core = array / norm
    for k, basis in enumerate(bases):
        core = np.moveaxis(np.tensordot(core, basis, axes=(k, 0)), -1, k)
    long = [k for k, n in enumerate(core.shape) if n > 1] or [0]
    found = _factors(core.reshape([core.shape[k] for k in long]), rank, eps, iterations)
    factors = [np.repeat(basis, rank, axis=1) for basis in bases]
    for k, factor in zip(long, found, strict=True):
        factors[k] = bases[k] @ factor
    factors[long[0]] = factors[long[0]] * norm
    return _trainable(factors)


def _factors(core: Array, rank: int, eps: float, iterations: int | None) -> list[Array]:
    """Those of a tensor of norm 1 that uses all of its axes, none of length 1."""
    if core.ndim == 1:
        return [np.pad(core[:, None], [(0, 0), (0, rank - 1)])]
    if core.ndim == 2:
        left, values, right = np.linalg.svd(core, full_matrices=False)
        padding = [(0, 0), (0, max(0, rank - len(values)))]
        return [np.pad(left[:, :rank] * values[:rank], padding), np.pad(right[:rank].T, padding)]
    ridge = max(RIDGE, eps**2)
    rounds = ROUNDS if core.size * rank < DEAR else DEAR_ROUNDS
    starts = _starts(core, rank, rounds[0][1] if iterations is None else FEW)
    ends = [(math.inf, start) for start in starts]
    allowed = sum(more for more, _ in rounds) if iterations is None else iterations
    for more, many in rounds:
        now = min(more, allowed)
        allowed -= now
        for k, (_, factors) in enumerate(ends[: many if now else 0]):
            ends[k] = _als(core, factors, now, ridge)
            if ends[k][0] < EXACT:
                return ends[k][1]
        ends.sort(key=lambda end: end[0])
    return ends[0][1]


def _als(
    core: Array, start: Sequence[Array], iterations: int, ridge: float
) -> tuple[float, list[Array]]:
    """Where ALS ends: the error, and the factors."""
    rank = start[0].shape[1]
    with tensorly.backend_context("numpy"):
        found = parafac(
            core,
            rank,
            n_iter_max=iterations,
            init=CPTensor((np.ones(rank), [factor.copy() for factor in start])),
            tol=TOLERANCE,
            l2_reg=ridge,
            linesearch=True,
        )
    factors = [
        factor * (found.weights if k == 0 else 1.0) for k, factor in enumerate(found.factors)
    ]
    made = np.einsum(
        *(part for k, factor in enumerate(factors) for part in (factor, [k, core.ndim])),
        list(range(core.ndim)),
        optimize=True,
    )
    return float(np.linalg.norm(made - core)), _balanced(factors)


def _starts(core: Array, rank: int, count: int) -> list[list[Array]]:
    generator = np.random.default_rng(0)
    leading = []
    for k, n in enumerate(core.shape):
        own = np.linalg.svd(_unfolded(core, k), full_matrices=False)[0][:, :rank]
        more = generator.standard_normal((n, rank - own.shape[1])) / math.sqrt(n)
        leading.append(np.hstack([own, more]))
    starts = [leading, *_from_slices(core, rank, generator)]
    while len(starts) < count:
        starts.append([generator.standard_normal((n, rank)) for n in core.shape])
    return starts


def _from_slices(core: Array, rank: int, generator: np.random.Generator) -> list[list[Array]]:
    """The start that is exact where the tensor has that rank, at most its two longest axes'.

    With all other axes as slices T_s = A diag(c_s) B', two mixtures of slices have the quotient
    A diag(c / d) A^-1: its eigenvectors are the factor A. None where there is no such start.
    """
    a, b = sorted(np.argsort(core.shape, kind="stable")[-2:].tolist())
    if min(core.shape[a], core.shape[b]) < rank:
        return []
    rest = [k for k in range(core.ndim) if k not in (a, b)]
    left, right = (
        np.linalg.svd(_unfolded(core, k), full_matrices=False)[0][:, :rank] for k in (a, b)
    )
    slices = core.transpose([*rest, a, b]).reshape(-1, core.shape[a], core.shape[b])
    small = left.T @ slices @ right  # [slices, rank, rank]
    one, other = np.tensordot(generator.standard_normal((2, len(small))), small, axes=1)
    try:
        values, vectors = np.linalg.eig(one @ np.linalg.inv(other))
        # A pair of complex vectors spans what its real and imaginary parts do.
        mixing = np.where(values.imag < 0.0, vectors.imag, vectors.real)
        rows = np.linalg.inv(mixing) @ small
    except np.linalg.LinAlgError:
        return []
    factors = [np.zeros((n, rank)) for n in core.shape]
    factors[a] = left @ mixing
    for r in range(rank):
        outer, values, inner = np.linalg.svd(rows[:, r], full_matrices=False)
        factors[b][:, r] = right @ inner[0]
        window = (outer[:, 0] * values[0]).reshape([core.shape[k] for k in rest])
        for i, k in enumerate(rest):
            own = np.linalg.svd(_unfolded(window, i), full_matrices=False)
            factors[k][:, r] = own[0][:, 0] * (own[1][0] if i == 0 else 1.0)
    return [factors] if all(np.isfinite(factor).all() for factor in factors) else []


def _unfolded(array: Array, axis: int) -> Array:
    return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)


def _used(array: Array, axis: int, eps: float) -> Array:
    """An orthonormal basis [length, directions] of what a tensor uses of an axis."""
    matrix = _unfolded(array, axis)
    spectrum = matrix_spectrum(matrix, exact=eps < NOTHING**2)
    used = np.count_nonzero(spectrum.values > max(eps, NOTHING) * spectrum.values[0])
    return np.eye(len(matrix)) if used == len(matrix) else spectrum.left(matrix, int(used))


def _trainable(factors: list[Array]) -> list[Array]:
    """Components of zero with one factor of zero only: gradients reach that."""
    norms = np.stack([np.linalg.norm(factor, axis=0) for factor in factors])
    dead = (norms == 0.0).any(axis=0)
    generator = np.random.default_rng(0)
    for k, factor in enumerate(factors):
        more = generator.standard_normal(factor.shape) / math.sqrt(len(factor))
        factors[k] = np.where(dead, 0.0 if k == len(factors) - 1 else more, factor)
    return factors


def _balanced(factors: Sequence[Array]) -> list[Array]:
    """Factors whose columns are as large as each other's, component by component."""
    norms = np.stack([np.linalg.norm(factor, axis=0) for factor in factors])
    alive = (norms > 0.0).all(axis=0)
    norms = np.where(alive, norms, 1.0)
    mean = np.exp(np.log(norms).mean(axis=0))
    return [factor * (mean / own) for factor, own in zip(factors, norms, strict=True)]
