"""What a run learned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from morph.architecture.architecture import Architecture
from morph.architecture.expand import widened
from morph.cycle.measure import BASELINES, NAMES, SHRUNK, TENSORIZED
from morph.cycle.progress import Outcome
from morph.network import Network, Variables


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run learned.

    Attributes:
        architecture: the final one, relative to the seed network.
        shrunk: the architecture before the last expansion.
        variables: the final network's, trained.
        network: the final network.
        outcomes: seed, shrunk, expanded and retrained, of each cycle, and the baselines.
        architectures: of the outcomes, by name; those of the cycles before the last are not kept.
    """

    architecture: Architecture
    shrunk: Architecture
    variables: Variables
    network: Network
    outcomes: tuple[Outcome, ...]
    architectures: Mapping[str, Architecture]

    @property
    def against_seed(self) -> dict[str, float]:
        """What the network of `architecture` is, and costs, against the seed, trained or given.

        `cost`, `flops` and `parameters` are ratios to the seed's; metrics are differences, to the
        seed network that was trained as long where `baselines` asked for one.
        """
        names = [one.name for one in self.outcomes]
        seed = self.outcomes[names.index(NAMES["whole" if NAMES["whole"] in names else "seed"])]
        widths = self.architecture.widths
        last = [one for one in self.outcomes if one.widths == widths][-1]
        ratios = {
            name: getattr(last, name) / getattr(seed, name)
            for name in ("cost", "flops", "parameters")
        }
        return ratios | {name: last.metrics[name] - value for name, value in seed.metrics.items()}


def architectures_of(
    seed: Architecture, shrunk: Architecture, final: Architecture, outcomes: Iterable[Outcome]
) -> dict[str, Architecture]:
    """The architecture of every network that is known at the end, by its outcome's name."""
    found = {}
    for one in outcomes:
        if one.name in (NAMES["seed"], *BASELINES):
            found[one.name] = widened(seed, one.widths)
        elif one.name.startswith(SHRUNK) and one.widths == shrunk.widths:
            found[one.name] = shrunk
        elif one.name.startswith(TENSORIZED):
            found[one.name] = final
        elif one.widths == final.widths:
            found[one.name] = replace(final, factorized={})
    return found
