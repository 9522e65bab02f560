"""The ways to keep one kernel: a ladder of ranks, with what each costs and loses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from morph.kernels.decompose import factorize_stack
from morph.kernels.factorized import Format
from morph.kernels.formats import CORES, FORMATS
from morph.kernels.ranks import attainable
from morph.kernels.spectra import Spectrum, bond_spectra

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


@dataclass(frozen=True, kw_only=True, eq=False)
class Ladder:
    """What the ranks of a kernel lose.

    Attributes:
        format: of the cores.
        sizes: the length of every label, and for every bond the largest rank.
        rungs: ranks that lose alike at every bond, falling to ones, each with its relative error.
        error: an estimate of that at any ranks.
    """

    format: Format
    sizes: Mapping[str, int]
    rungs: Sequence[Rung]
    error: Callable[[Mapping[str, int]], float]

    def attainable(self, ranks: Mapping[str, int]) -> dict[str, int]:
        """The same ranks, cut to what the other axes can tell apart."""
        return attainable(self.format, self.sizes, ranks)

    def above(self, ranks: Mapping[str, int]) -> Iterator[dict[str, int]]:
        """The next ranks: one more at one bond, and at all of them."""
        wider = [{**ranks, bond: rank + 1} for bond, rank in ranks.items()]
        wider.append({bond: rank + 1 for bond, rank in ranks.items()})
        found = [self.attainable(more) for more in wider]
        yield from (more for k, more in enumerate(found) if more not in [ranks, *found[:k]])

    def parameters(self, ranks: Mapping[str, int]) -> int:
        """How many numbers the cores hold at these ranks."""
        return self.format.parameters({**self.sizes, **ranks})


def rank_ladder(
    format: Format, sizes: Mapping[str, int], spectra: Mapping[str, Spectrum]
) -> Ladder:
    """The ladder by the spectra of the bonds.

    Errors are as if every bond kept its share of what the others leave: exact for `svd`, and close
    to the bound, the root of the sum of squares, where little is lost. Unlike the bound it tells
    ranks apart that lose much.
    """
    norm = max((s.norm for s in spectra.values()), default=0.0) or 1.0

    def error(ranks: Mapping[str, int]) -> float:
        lost = [s.tails[min(ranks[bond], len(s.values))] / norm for bond, s in spectra.items()]
        return math.sqrt(max(0.0, 1.0 - math.prod(1.0 - min(1.0, own) ** 2 for own in lost)))

    found = [dict.fromkeys(format.bonds, 1)]
    for share in np.geomspace(MOST_ERROR, LEAST_ERROR, RUNGS):
        wanted = {bond: s.least_rank(float(share) * s.norm) for bond, s in spectra.items()}
        ranks = attainable(format, sizes, wanted)
        found += [ranks] if ranks != found[-1] else []
    return Ladder(
        format=format,
        sizes=sizes,
        rungs=[(ranks, error(ranks)) for ranks in reversed(found)],
        error=error,
    )


def ladder(
    kernel: Any,
    roles: str,
    kind: str,
    *,
    cores: int = CORES,
    factors: Sequence[Sequence[int]] | None = None,
    path: str = "",
) -> Ladder:
    """`rank_ladder` of a kernel, by its own spectra; CP, which has none, is fitted.

    Of a stack (role `b`) it is that of the kernel which loses most.
    """
    if "b" in roles:
        axis = roles.index("b")
        found = [
            ladder(one, roles.replace("b", ""), kind, cores=cores, factors=factors, path=path)
            for one in np.moveaxis(np.asarray(kernel), axis, 0)
        ]
        return max(found, key=lambda one: sum(error for _, error in one.rungs) / len(one.rungs))
    shape = kernel.shape
    options: dict[str, Any] = {"cores": cores, "factors": factors} if kind == "tt" else {}
    format, sizes = FORMATS[kind](shape, roles, **options)
    if kind != "cp":
        return rank_ladder(format, sizes, bond_spectra(kernel, roles, kind, path=path, **options))
    most = max(2, min(sizes["r"], math.prod(shape) // sum(shape)))
    ranks = sorted({round(r) for r in np.geomspace(1, most, CP_RUNGS)})
    errors = [
        factorize_stack(kernel, roles, kind, ranks=r, iterations=CP_ITERATIONS, path=path).error
        for r in ranks
    ]
    errors = np.minimum.accumulate(errors).tolist()
    return interpolated(
        Ladder(format=format, sizes={**sizes, "r": most}, rungs=(), error=lambda own: -own["r"]),
        [({"r": r}, error) for r, error in zip(reversed(ranks), reversed(errors), strict=True)],
    )


def interpolated(known: Ladder, rungs: Sequence[Rung]) -> Ladder:
    """A ladder of other errors, which are measured at some ranks.

    Args:
        known: whose errors order the ranks.
        rungs: ranks and their errors, falling from large ranks to ones.
    """
    places = [known.error(ranks) for ranks, _ in rungs]
    errors = [error for _, error in rungs]
    return replace(
        known, rungs=rungs, error=lambda ranks: float(np.interp(known.error(ranks), places, errors))
    )
