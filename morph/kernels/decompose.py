"""From a dense kernel to its cores: truncated SVD, HOSVD and HOOI, ALS for CP, TT-SVD.

All of it on the host in float64; the cores come in the kernel's own type.

Sources: Eckart and Young 1936 (SVD); De Lathauwer, De Moor and Vandewalle 2000, "A multilinear
singular value decomposition" (HOSVD) and "On the best rank-(R1, ..., RN) approximation" (HOOI);
Kolda and Bader 2009 (ALS); Oseledets 2011, "Tensor-train decomposition", algorithm 1 (TT-SVD); Kim
et al. 2015 (Tucker-2 at EVBMF ranks); Lebedev et al. 2014 (CP of convolutions).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tensornetwork as tn

from morph.kernels.canonical import canonical
from morph.kernels.factorized import Factorized
from morph.kernels.formats import CORES
from morph.kernels.ranks import Ranks, attainable, choose_ranks
from morph.kernels.spectra import (
    Array,
    Kernel,
    Spectrum,
    bond_rows,
    bond_spectra,
    kernel_spectra,
    matrix_spectrum,
    read_kernel,
)
from regularizers.checks import ARRAY, NAME, checked, number, whole
from regularizers.errors import InputError

HOOI_ITERATIONS = 10
HOOI_TOLERANCE = 1e-6  # of the squared norm: what an iteration has to gain


@dataclass(frozen=True, kw_only=True)
class Factorization:
    """What became of a kernel.

    Attributes:
        value: the factorized kernel.
        error: Frobenius norm of what `value` lacks by the kernel's norm, as the cores are, in their
            own type; 0 for a kernel of zeros.
        notes: what is not as asked: ranks clipped, or raised to 1.
    """

    value: Factorized
    error: float
    notes: tuple[str, ...]


@checked(
    kernel=ARRAY,
    roles=NAME,
    kind=NAME,
    energy=number(),
    error=number(),
    cores=whole(least=1),
    iterations=whole(least=0),
    path=NAME,
)
def factorize(
    kernel: Any,
    roles: str,
    kind: str,
    ranks: Ranks = None,
    *,
    energy: float | None = None,
    error: float | None = None,
    cores: int = CORES,
    factors: Sequence[Sequence[int]] | None = None,
    iterations: int | None = None,
    spectra: Mapping[str, Spectrum] | None = None,
    path: str | None = None,
) -> Factorization:
    """Replaces a kernel by a product of cores.

    Exactly one of `ranks`, `energy` and `error` says how large the cores get.

    Args:
        kernel: an array of real floats.
        roles: one letter an axis, `i`, `o` or `s`; see `morph.kernels.formats`.
        kind: `svd`, `tt`, `tucker2`, `tucker` or `cp`.
        ranks: one number for all bonds; or a number for each bond, as {"r_in": 4, "r_out": 5}; or
            "vbmf", what stands out of the noise in each bond's unfolding (`vbmf.evbmf`). For CP,
            whose rank no unfolding tells, "vbmf" is the larger one of Tucker-2's: published
            practice, no theory.
        energy: the least ranks that keep this share of the squared norm at every bond, in (0, 1].
        error: a bound on the relative error of the whole, in [0, 1): every bond may lose
            error / sqrt(bonds) of the norm. Of a bf16 kernel the cores' rounding comes on top.
        cores: of a tensor train.
        factors: of a tensor train; see `formats.tt`.
        iterations: at most so many, of HOOI (0: HOSVD) or of ALS.
        spectra: of this kernel in this format if known, as `spectra.bond_spectra` gives them.
        path: of the kernel, for messages.

    Raises:
        ValueError: if the kernel is empty, not finite, not of real floats, or does not fit its
            roles; if not exactly one of ranks, energy and error is given, or it is out of range;
            for CP with energy or error.

    Example:
        >>> found = factorize(np.eye(6, 8, dtype=np.float32), "io", "svd", 3)
        >>> found.value.ranks, round(found.error**2, 6)
        ({'r': 3}, 0.5)
    """
    source = read_kernel(kernel, roles, kind, cores=cores, factors=factors, path=path)
    told = ranks is not None and not isinstance(ranks, str)
    if spectra is None and (kind in ("svd", "tucker2", "tucker") or not told):
        spectra = (
            bond_spectra(kernel, roles, kind, path=path) if kind == "cp" else kernel_spectra(source)
        )
    known = spectra or {}
    wanted, notes = choose_ranks(source.format, known, ranks, energy=energy, error=error)
    possible = attainable(source.format, source.sizes, wanted)
    notes += [
        f"{bond}: rank {wanted[bond]} is more than the cores can use, clipped to {most}"
        for bond, most in possible.items()
        if most < wanted[bond]
    ]
    found = DECOMPOSERS[kind](source, known, possible, iterations)
    to_array = jax.device_put if isinstance(kernel, jax.Array) else np.asarray
    value = Factorized(
        cores=tuple(to_array(core.astype(kernel.dtype)) for core in found), format=source.format
    )
    return Factorization(value=value, error=_error(value, source), notes=tuple(notes))


def factorize_stack(kernel: Any, roles: str, kind: str, **how: Any) -> Factorization:
    """`factorize`, for stacks of kernels too (role `b`).

    The kernels of a stack get the same ranks: the largest that one of them asks for.
    """
    if "b" not in roles:
        return factorize(kernel, roles, kind, **how)
    axis = roles.index("b")
    slices, rest = jnp.moveaxis(jnp.asarray(kernel), axis, 0), roles.replace("b", "")
    found = [factorize(one, rest, kind, **how) for one in slices]
    ranks = {
        bond: max(one.value.ranks[bond] for one in found) for bond in found[0].value.format.bonds
    }
    if any(one.value.ranks != ranks for one in found):
        how = {
            name: how[name] for name in ("cores", "factors", "iterations", "path") if name in how
        }
        found = [factorize(one, rest, kind, ranks, **how) for one in slices]
    value = Factorized(
        cores=tuple(
            jnp.stack(cores) for cores in zip(*(f.value.cores for f in found), strict=True)
        ),
        format=found[0].value.format.stacked(axis),
    )
    powers = [float(jnp.sum(jnp.square(one.astype(jnp.float32)))) for one in slices]
    lost = sum(f.error**2 * power for f, power in zip(found, powers, strict=True))
    notes = tuple(dict.fromkeys(note for one in found for note in one.notes))
    return Factorization(value=value, error=math.sqrt(lost / (sum(powers) or 1.0)), notes=notes)


def truncated(value: Factorized, rank: int) -> Factorized:
    """The best factorization of a lower rank, of kind `svd`, at the price of two thin QRs.

    Args:
        value: of kind `svd`.
        rank: at least 1, at most the present one.

    Raises:
        ValueError: if the kind is another or the rank is out of range.

    Example:
        >>> found = factorize(np.diag([4.0, 2.0, 1.0]), "io", "svd", 3).value
        >>> truncated(found, 1).dense().round(3).tolist()
        [[4.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    if value.format.kind != "svd":
        raise InputError(f"only kind 'svd' is cut exactly, found {value.format.kind!r}.")
    have = value.ranks["r"]
    if not 1 <= rank <= have:
        raise InputError(f"the rank to cut to is 1 to {have}, found {rank}.")
    left, right = (np.asarray(core).astype(np.float64) for core in value.cores)
    q_left, r_left = np.linalg.qr(left.reshape(-1, have))
    q_right, r_right = np.linalg.qr(right.reshape(have, -1).T)
    u, s, vt = np.linalg.svd(r_left @ r_right.T)
    root = np.sqrt(s[:rank])
    cut = (q_left @ (u[:, :rank] * root), (root[:, None] * vt[:rank]) @ q_right.T)
    shapes = ((*left.shape[:-1], rank), (rank, *right.shape[1:]))
    to_array = jax.device_put if isinstance(value.cores[0], jax.Array) else np.asarray
    return Factorized(
        cores=tuple(
            to_array(core.reshape(shape).astype(value.dtype))
            for core, shape in zip(cut, shapes, strict=True)
        ),
        format=value.format,
    )


def _svd(
    kernel: Kernel, spectra: Mapping[str, Spectrum], ranks: Mapping[str, int], _: int | None
) -> list[Array]:
    """U and V of equal norms, component by component: so gradient descent keeps them."""
    (rows,) = bond_rows(kernel.format).values()
    spectrum, rank = spectra["r"], ranks["r"]
    matrix = kernel.unfold(rows)
    if spectrum.of_rows:
        left = spectrum.vectors[:, :rank]
        right = left.T @ matrix
    else:
        right = spectrum.vectors[:, :rank].T
        left = matrix @ right.T
    kept = spectrum.values[:rank]
    scales = np.where(kept > 0.0, np.sqrt(kept), 1.0)  # at zero one side stays: it can be trained
    up, down = (scales, 1.0 / scales) if spectrum.of_rows else (1.0 / scales, scales)
    return _shaped(kernel, [left * up, down[:, None] * right], ranks)


def _tucker(
    kernel: Kernel,
    spectra: Mapping[str, Spectrum],
    ranks: Mapping[str, int],
    iterations: int | None,
) -> list[Array]:
    """HOSVD, then HOOI: every factor in turn the best for the others; Tucker and Tucker-2."""
    rows = bond_rows(kernel.format)
    window = tuple(n for n in kernel.labels if not any(n in own for own in rows.values()))
    # One axis for each factor, after the window's.
    lengths = [math.prod(kernel.sizes[n] for n in own) for own in rows.values()]
    order = [n for own in (window, *rows.values()) for n in own]
    array = kernel.array.transpose([kernel.labels.index(n) for n in order])
    array = array.reshape(-1, *lengths)
    factors = [spectra[bond].left(kernel.unfold(own), ranks[bond]) for bond, own in rows.items()]
    core = _projected(array, factors)
    gained = np.vdot(core, core)
    tolerance = HOOI_TOLERANCE * np.vdot(array, array)
    if sum(n > 1 for n in array.shape) <= 2:
        iterations = 0  # HOSVD of a matrix is the best already
    for _ in range(HOOI_ITERATIONS if iterations is None else iterations):
        for k, bond in enumerate(rows):
            others = [None if n == k else factor for n, factor in enumerate(factors)]
            partly = np.moveaxis(_projected(array, others), k + 1, 0).reshape(lengths[k], -1)
            factors[k] = matrix_spectrum(partly, exact=kernel.exact).left(partly, ranks[bond])
        core = _projected(array, factors)
        before, gained = gained, np.vdot(core, core)
        if gained - before <= tolerance:
            break
    leaves = dict(zip(rows, factors, strict=True))
    found = []
    for own in kernel.format.labels:
        bonds = [label for label in own if label in leaves]
        one = core if len(bonds) > 1 else leaves[bonds[0]]
        found.append(one.T if len(bonds) == 1 and own[0] in leaves else one)
    return _balanced(_shaped(kernel, found, ranks))


def _projected(array: Array, factors: Sequence[Array | None]) -> Array:
    """The array with each of its last axes onto its factor, where there is one."""
    for k, factor in enumerate(factors):
        if factor is not None:
            array = np.moveaxis(np.tensordot(array, factor, axes=(k + 1, 0)), -1, k + 1)
    return array


def _tt(
    kernel: Kernel, _: Mapping[str, Spectrum], ranks: Mapping[str, int], __: int | None
) -> list[Array]:
    """TT-SVD: one sweep from the left, each core the leading left singular vectors."""
    labels = kernel.format.labels
    order = [label for own in labels for label in own if label not in ranks]
    array = kernel.array.transpose([kernel.labels.index(label) for label in order])
    rest = tn.Node(array, backend="numpy")
    found: list[Array] = []
    for own in labels[:-1]:
        bond = own[-1]
        here = len(own) - 1
        left, values, right, _discarded = tn.split_node_full_svd(
            rest, rest.edges[:here], rest.edges[here:], max_singular_values=ranks[bond]
        )
        found.append(left.tensor)
        rest = tn.contract_between(values, right, output_edge_order=[values[0], *right.edges[1:]])
    return _balanced(_shaped(kernel, [*found, rest.tensor], ranks))


def _cp(
    kernel: Kernel, _: Mapping[str, Spectrum], ranks: Mapping[str, int], iterations: int | None
) -> list[Array]:
    """ALS from several starts; exact where the kernel is a matrix or the rank full."""
    rank = ranks["r"]
    if rank == kernel.sizes["r"]:
        found = _all_ranks(kernel.array, rank)
    else:
        found = canonical(kernel.array, rank, eps=kernel.eps, iterations=iterations)
    norms = np.stack([np.linalg.norm(factor, axis=0) for factor in found])
    norms = np.where((norms > 0.0).all(axis=0), norms, 1.0)
    scales = _mean(norms) / norms
    return [factor * scale for factor, scale in zip(found, scales, strict=True)]


def _all_ranks(array: Array, rank: int) -> list[Array]:
    """Factors that make any array: the longest axis as it is, a component for every other entry."""
    longest = int(np.argmax(array.shape))
    others = [n for k, n in enumerate(array.shape) if k != longest]
    made = [np.eye(n)[:, own.ravel()] for n, own in zip(others, np.indices(others), strict=True)]
    made.insert(longest, np.moveaxis(array, longest, 0).reshape(-1, rank))
    return made


def _shaped(kernel: Kernel, cores: Sequence[Array], ranks: Mapping[str, int]) -> list[Array]:
    """The cores with one axis for every label."""
    sizes = {**kernel.sizes, **ranks}
    shapes = kernel.format.core_shapes(sizes)
    return [core.reshape(shape) for core, shape in zip(cores, shapes, strict=True)]


def _balanced(cores: Sequence[Array]) -> list[Array]:
    """The cores scaled to equal norms, whose differences gradient descent would keep."""
    norms = np.array([np.linalg.norm(core) for core in cores])
    if not norms.all():
        return list(cores)
    return [core * scale for core, scale in zip(cores, _mean(norms) / norms, strict=True)]


def _mean(norms: Array) -> Array:
    """The geometric mean over the first axis."""
    return np.exp(np.log(norms).mean(axis=0))


def _error(value: Factorized, kernel: Kernel) -> float:
    number = {label: k for k, label in enumerate((*kernel.labels, *value.format.bonds))}
    operands: list[Any] = []
    for core, own in zip(value.cores, value.format.labels, strict=True):
        operands += [np.asarray(core).astype(np.float64), [number[label] for label in own]]
    made = np.einsum(*operands, [number[label] for label in kernel.labels], optimize=True)
    norm = float(np.linalg.norm(kernel.array))
    return float(np.linalg.norm(made - kernel.array)) / norm if norm else 0.0


DECOMPOSERS: Mapping[
    str,
    Callable[
        [Kernel, Mapping[str, Spectrum], Mapping[str, int], int | None],
        list[Array],
    ],
] = {"svd": _svd, "tucker2": _tucker, "tucker": _tucker, "cp": _cp, "tt": _tt}
