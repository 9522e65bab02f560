"""The spectrum of every bond: what each rank would lose, known before anything is decomposed.

A bond of a tree of cores parts the axes of a kernel in two. The singular values of that unfolding
say what a rank loses there, and no choice of cores loses less at this bond; all bonds together lose
at most the root of the sum of squares (Oseledets 2011, theorem 2.2; De
Lathauwer et al. 2000, property 10).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from morph.kernels.contract import Labels
from morph.kernels.factorized import Format
from morph.kernels.formats import CORES, FORMATS
from morph.kernels.vbmf import Evbmf, evbmf
from regularizers.errors import InputError

Array = NDArray[np.float64]

# Of singular values that differ less than this, all singular vectors are orthogonal to 1e-9.
NEAR = 1e-3
EXACT_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, kw_only=True, eq=False)
class Kernel:
    """A kernel on the host in float64, with one axis for every label of its format.

    Attributes:
        array: the numbers.
        labels: of its axes.
        format: of the cores that shall make it.
        sizes: the length of every label, and for every bond the largest rank.
        eps: the relative rounding of the type that the kernel came in.
    """

    array: Array
    labels: Labels
    format: Format
    sizes: Mapping[str, int]
    eps: float

    @property
    def exact(self) -> bool:
        """Whether it came in float64, and deserves a decomposition as accurate."""
        return self.eps <= EXACT_EPS

    def unfold(self, rows: Labels) -> Array:
        """The matrix of some labels against all others."""
        rest = tuple(label for label in self.labels if label not in rows)
        order = [self.labels.index(label) for label in (*rows, *rest)]
        return self.array.transpose(order).reshape(math.prod(self.sizes[n] for n in rows), -1)


def read_kernel(
    kernel: Any,
    roles: str,
    kind: str,
    *,
    cores: int = CORES,
    factors: Sequence[Sequence[int]] | None = None,
    path: str | None = None,
) -> Kernel:
    """A kernel, checked and ready to be decomposed; arguments as of `factorize`."""
    name = f"kernel {path}" if path else "the kernel"
    if kind not in FORMATS:
        raise InputError(f"kind {kind!r} is none of {sorted(FORMATS)}.")
    if factors is not None and kind != "tt":
        raise InputError(f"factors are for kind 'tt', found kind {kind!r}.")
    if not jnp.issubdtype(kernel.dtype, jnp.floating):
        raise InputError(f"{name} is of type {kernel.dtype}; only real floats are factorized.")
    if len(roles) != kernel.ndim or set(roles) - set("sio") or not set("io") <= set(roles):
        raise InputError(
            f"{name} of shape {list(kernel.shape)} has roles {roles!r}; give one letter an axis, "
            "'i' for inputs, 'o' for outputs, 's' for the window, with at least one 'i' and 'o'."
        )
    if 0 in kernel.shape:
        raise InputError(f"{name} of shape {list(kernel.shape)} is empty; leave it dense.")
    array = np.asarray(kernel).astype(np.float64)
    if not np.isfinite(array).all():
        raise InputError(
            f"{name} of shape {list(kernel.shape)} holds {np.count_nonzero(~np.isfinite(array))} "
            "values that are NaN or infinite; it cannot be factorized."
        )
    options = {"cores": cores, "factors": factors} if kind == "tt" else {}
    format, sizes = FORMATS[kind](kernel.shape, roles, **options)
    labels = tuple(label for axis in format.axes for label in axis)
    return Kernel(
        array=array.reshape([sizes[label] for label in labels]),
        labels=labels,
        format=format,
        sizes=sizes,
        eps=float(jnp.finfo(kernel.dtype).eps),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Spectrum:
    """The singular values of one unfolding, and the singular vectors of its shorter side.

    Attributes:
        values: falling, min(rows, columns) of them.
        rows: of the unfolding.
        columns: of the unfolding.
        vectors: [shorter side, values], in columns.
        of_rows: whether they belong to the rows.
    """

    values: Array
    rows: int
    columns: int
    vectors: Array
    of_rows: bool

    @cached_property
    def tails(self) -> Array:
        """What the ranks 0, 1, ... lose at this bond: a Frobenius norm for each."""
        squares = np.cumsum(self.values[::-1] ** 2)[::-1]
        return np.sqrt(np.append(squares, 0.0))

    @property
    def norm(self) -> float:
        """The Frobenius norm of the kernel."""
        return float(self.tails[0])

    @cached_property
    def evbmf(self) -> Evbmf:
        """What stands out of the noise."""
        return evbmf(self.values, self.rows, self.columns)

    def least_rank(self, tail: float) -> int:
        """The least rank, at least 1, that loses at most this Frobenius norm."""
        return max(1, int(np.argmax(self.tails <= tail)))

    def left(self, matrix: Array, rank: int) -> Array:
        """The leading left singular vectors [rows, rank] of the unfolding, which is given."""
        if self.of_rows:
            return self.vectors[:, :rank]
        image = matrix @ self.vectors[:, :rank]  # orthogonal columns, as well as values are told
        kept = self.values[:rank]
        if kept[-1] > NEAR * kept[0]:
            return image / kept
        return np.linalg.qr(image)[0]

    def transposed(self) -> Spectrum:
        """That of the transpose."""
        return replace(self, rows=self.columns, columns=self.rows, of_rows=not self.of_rows)


def matrix_spectrum(matrix: Array, *, exact: bool) -> Spectrum:
    """The spectrum of a matrix.

    Through the Gram matrix of the shorter side, several times as fast as an SVD, unless `exact`:
    singular values below 1e-8 of the largest drown in rounding, as they do in kernels of float32.
    """
    rows, columns = matrix.shape
    of_rows = rows <= columns
    wide = matrix if of_rows else matrix.T
    if exact:
        vectors, values, _ = scipy.linalg.svd(wide, full_matrices=False)
    else:
        squares, vectors = scipy.linalg.eigh(wide @ wide.T, driver="evd", overwrite_a=True)
        values, vectors = np.sqrt(np.maximum(squares[::-1], 0.0)), vectors[:, ::-1]
    return Spectrum(values=values, rows=rows, columns=columns, vectors=vectors, of_rows=of_rows)


def bond_rows(format: Format) -> dict[str, Labels]:
    """For every bond the labels of one of its sides.

    Of a tensor train those to the left, else those of the factor that ends in the bond. CP has a
    rank and no bonds: none.
    """
    bonds = format.bonds
    rows: dict[str, Labels] = {}
    left: Labels = ()
    if format.kind == "cp":
        return rows
    for own in format.labels:
        open_ = tuple(label for label in own if label not in bonds)
        left = (*left, *open_)
        new = [label for label in own if label in bonds and label not in rows]
        if format.kind == "tt":
            rows.update((bond, left) for bond in new)
        elif len(own) - len(open_) == 1:
            rows.update((bond, open_) for bond in new)
    return rows


def kernel_spectra(kernel: Kernel) -> dict[str, Spectrum]:
    """The spectrum of every bond; bonds that part the axes alike share their decomposition."""
    found: dict[frozenset[str], Spectrum] = {}
    spectra = {}
    for bond, rows in bond_rows(kernel.format).items():
        long = frozenset(label for label in kernel.labels if kernel.sizes[label] > 1)
        side = long & set(rows)
        if side in found:
            spectra[bond] = found[side]
        elif long - side in found:
            spectra[bond] = found[long - side].transposed()
        else:
            spectra[bond] = matrix_spectrum(kernel.unfold(rows), exact=kernel.exact)
            found[side] = spectra[bond]
    return spectra


def bond_spectra(
    kernel: Any,
    roles: str,
    kind: str,
    *,
    cores: int = CORES,
    factors: Sequence[Sequence[int]] | None = None,
    path: str | None = None,
) -> dict[str, Spectrum]:
    """For every bond the singular values of its unfolding; hand them on to `factorize`.

    The relative error of the factorization at ranks r is at most
    `hypot(*(s.tails[r[bond]] for bond, s in spectra.items())) / norm`, for `svd` exactly that, and
    at least the largest of the terms. CP has no bonds: it gets those of Tucker-2, whose tails bound
    its error from below only.

    Args:
        kernel: an array of real floats.
        roles: one letter an axis; see `morph.kernels.formats`.
        kind: one of `FORMATS`.
        cores: of a tensor train.
        factors: of a tensor train; see `formats.tt`.
        path: of the kernel, for messages.

    Raises:
        ValueError: if the kernel is empty, not finite, not of real floats, or does not fit its
            roles; if the kind is unknown or the factors do not multiply to the shape.

    Example:
        >>> found = bond_spectra(np.eye(4, 6), "io", "svd")["r"]
        >>> found.values.tolist(), found.tails[3]
        ([1.0, 1.0, 1.0, 1.0], np.float64(1.0))
    """
    own = "tucker2" if kind == "cp" else kind
    return kernel_spectra(read_kernel(kernel, roles, own, cores=cores, factors=factors, path=path))
