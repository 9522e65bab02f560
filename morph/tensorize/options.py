"""The ways to keep one kernel: a ladder of ranks, with what each costs and loses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from morph.kernels.decompose import factorize_stack
from morph.kernels.factorized import Format
from morph.kernels.formats import CORES, FORMATS
from morph.kernels.ranks import attainable
from morph.kernels.spectra import Spectrum, bond_spectra
from morph.tensorize.allocate import Option

Rung: TypeAlias = tuple[dict[str, int], float]  # ranks, and the relative error

RUNGS = 48  # of a ladder, about
LEAST_ERROR, MOST_ERROR = 1e-3, 0.98  # relative, of every bond, at its ends
CP_RUNGS = 6  # every one is an ALS
CP_ITERATIONS = 10


def log_loss(error: float) -> float:
    """What a layer loses: minus the logarithm of the share of power that it keeps.

    Summed over layers this is Zhang et al.'s (2015, section 2.4) product of energies, which goes
    with accuracy better than a sum of errors does.

    Args:
        error: relative, of Frobenius norms.
    """
    return -math.log(max(1.0 - error**2, 1e-12))


def rank_ladder(
    format: Format, sizes: Mapping[str, int], spectra: Mapping[str, Spectrum]
) -> list[Rung]:
    """Ranks that lose alike at every bond, and an estimate of the relative error.

    As if every bond kept its share of what the others leave: exact for `svd`, and close to the
    bound, the root of the sum of squares, where little is lost. Unlike the bound it tells ranks
    apart that lose much. The ladder falls from large ranks to ones.
    """
    found: dict[tuple[tuple[str, int], ...], float] = {}
    norms = [s.norm for s in spectra.values()]
    if not norms or not norms[0]:
        return [(dict.fromkeys(format.bonds, 1), 0.0)]
    for error in (*np.geomspace(LEAST_ERROR, MOST_ERROR, RUNGS), 1.0):
        wanted = {bond: s.least_rank(float(error) * s.norm) for bond, s in spectra.items()}
        ranks = attainable(format, sizes, wanted)
        lost = [s.tails[ranks[bond]] / s.norm for bond, s in spectra.items()]
        kept = math.prod(1.0 - min(1.0, own) ** 2 for own in lost)
        found[tuple(ranks.items())] = math.sqrt(1.0 - kept)
    return [(dict(ranks), error) for ranks, error in found.items()]


def ladder(
    kernel: Any,
    roles: str,
    kind: str,
    *,
    cores: int = CORES,
    factors: Sequence[Sequence[int]] | None = None,
    path: str = "",
) -> list[Rung]:
    """`rank_ladder` of a kernel, by its own spectra; CP, which has none, is fitted.

    Of a stack (role `b`) it is that of the kernel which loses most.
    """
    if "b" in roles:
        axis = roles.index("b")
        found = [
            ladder(one, roles.replace("b", ""), kind, cores=cores, factors=factors, path=path)
            for one in np.moveaxis(np.asarray(kernel), axis, 0)
        ]
        return max(found, key=lambda rungs: sum(error for _, error in rungs) / len(rungs))
    shape = kernel.shape
    options: dict[str, Any] = {"cores": cores, "factors": factors} if kind == "tt" else {}
    format, sizes = FORMATS[kind](shape, roles, **options)
    if kind == "cp":
        most = max(2, min(sizes["r"], math.prod(shape) // sum(shape)))
        rungs = sorted({round(r) for r in np.geomspace(most, 1, CP_RUNGS)}, reverse=True)
        return [
            (
                {"r": rank},
                factorize_stack(
                    kernel, roles, kind, ranks=rank, iterations=CP_ITERATIONS, path=path
                ).error,
            )
            for rank in rungs
        ]
    return rank_ladder(format, sizes, bond_spectra(kernel, roles, kind, path=path, **options))


def priced(
    kind: str,
    rungs: Sequence[Rung],
    loss: Callable[[float], float],
    cost: Callable[[Mapping[str, int]], float],
) -> list[Option]:
    """A ladder with its losses, of the errors, and costs."""
    return [
        Option(kind=kind, ranks=ranks, cost=cost(ranks), loss=loss(error)) for ranks, error in rungs
    ]
