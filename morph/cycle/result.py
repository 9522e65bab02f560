"""What a run learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from morph.architecture.architecture import Architecture
from morph.cycle.measure import NAMES
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
