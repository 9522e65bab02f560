"""The ranks of one kernel: as told, or the least that its spectra allow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral

import numpy as np

from morph.kernels.factorized import Format
from morph.kernels.spectra import Spectrum
from regularizers.errors import InputError

Ranks = int | Mapping[str, int] | str | None
EPS = float(np.finfo(np.float64).eps)


def choose_ranks(
    format: Format,
    spectra: Mapping[str, Spectrum],
    ranks: Ranks,
    *,
    energy: float | None = None,
    error: float | None = None,
) -> tuple[dict[str, int], list[str]]:
    """A rank of at least 1 for every bond, and notes on what was raised to 1.

    Args:
        format: whose bonds they are.
        spectra: of the bonds; of CP those of Tucker-2. Not read if `ranks` are numbers.
        ranks: a number, one for each bond, or "vbmf".
        energy: share of the squared norm to keep at every bond.
        error: bound on the relative error of the whole.

    Raises:
        ValueError: if not exactly one of the three is given, or it is out of range.
    """
    told = {"ranks": ranks, "energy": energy, "error": error}
    given = [name for name, value in told.items() if value is not None]
    if len(given) != 1:
        raise InputError(
            f"give exactly one of ranks, energy and error, found {' and '.join(given) or 'none'}."
        )
    if isinstance(ranks, str):
        return _vbmf_ranks(format, spectra, ranks)
    if ranks is not None:
        return _given_ranks(format, ranks), []
    if format.kind == "cp":
        raise InputError(
            f"cp has no spectrum that gives a rank for {given[0]}=; give ranks, a number or 'vbmf'."
        )
    share = 1.0 / math.sqrt(len(format.bonds) or 1)
    if energy is not None:
        if not 0.0 < energy <= 1.0:
            raise InputError(f"energy is a share of the squared norm in (0, 1], found {energy}.")
        return {
            # Rounding leaves a tail even where the rank is deficient.
            bond: s.least_rank(math.sqrt(max(1.0 - energy, EPS * len(s.values))) * s.norm)
            for bond, s in spectra.items()
        }, []
    assert error is not None
    if not 0.0 <= error < 1.0:
        raise InputError(f"error is a share of the norm in [0, 1), found {error}.")
    return {bond: s.least_rank(error * share * s.norm) for bond, s in spectra.items()}, []


def attainable(
    format: Format, sizes: Mapping[str, int], ranks: Mapping[str, int]
) -> dict[str, int]:
    """The same ranks, cut to what the other axes of a core can tell apart.

    Args:
        format: of the cores.
        sizes: of the labels; of CP also the largest rank.
        ranks: wanted.
    """
    if format.kind == "cp":
        return {bond: min(rank, sizes[bond]) for bond, rank in ranks.items()}
    found: dict[str, int] = dict(ranks)
    before: dict[str, int] = {}
    while found != before:
        before = dict(found)
        for own in format.labels:
            for bond in found.keys() & set(own):
                rest = (found.get(label, sizes[label]) for label in own if label != bond)
                found[bond] = min(found[bond], math.prod(rest))
    return found


def _given_ranks(format: Format, ranks: int | Mapping[str, int]) -> dict[str, int]:
    bonds = format.bonds
    found = dict(ranks) if isinstance(ranks, Mapping) else dict.fromkeys(bonds, ranks)
    if found.keys() != set(bonds):
        raise InputError(f"ranks are for the bonds {list(bonds)}, found {list(found)}.")
    for bond, rank in found.items():
        if not isinstance(rank, Integral) or isinstance(rank, bool) or rank < 1:
            raise InputError(f"rank of {bond} is a whole number of at least 1, found {rank!r}.")
    return {bond: int(found[bond]) for bond in bonds}


def _vbmf_ranks(
    format: Format, spectra: Mapping[str, Spectrum], ranks: str
) -> tuple[dict[str, int], list[str]]:
    if ranks != "vbmf":
        raise InputError(f"ranks are a number, one for each bond, or 'vbmf', found {ranks!r}.")
    found = {bond: s.evbmf.rank for bond, s in spectra.items()}
    if format.kind == "cp":
        found = {"r": max(found.values())}
    notes = [
        f"{bond}: nothing stands out of the noise, rank 1 is kept"
        for bond, rank in found.items()
        if rank == 0
    ]
    return {bond: max(1, rank) for bond, rank in found.items()}, notes
