"""What networks are worth and cost: every outcome of a run or a sweep is measured here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from morph.architecture.architecture import Architecture
from morph.architecture.expand import widened
from morph.budget.prices import Prices
from morph.cycle.progress import Outcome
from morph.network import Variables
from morph.training.evaluate import Evaluator
from morph.vocabulary import BASELINES as KINDS

# Of networks that end no cycle.
NAMES = {
    "seed": "seed",
    "whole": "seed, trained as long",
    "uniform": "uniform",
    "tensorize": "tensorized and fine-tuned",
}
BASELINES = tuple(NAMES[kind] for kind in KINDS)
SHRUNK, TENSORIZED = "shrunk", "tensorized"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Measures networks on the test set, and prices them.

    Attributes:
        prices: of the seed network's architectures.
        evaluator: holds the test set, and the metrics.
    """

    prices: Prices
    evaluator: Evaluator

    def of(
        self, predict: Callable[[Variables, Any], Any], variables: Variables
    ) -> dict[str, float]:
        """Every metric of a network."""
        return self.evaluator.measure(predict, variables)

    def outcome(
        self, name: str, architecture: Architecture, metrics: Mapping[str, float], steps: int
    ) -> Outcome:
        """What came out, priced.

        Args:
            name: of the network.
            architecture: relative to the seed network.
            metrics: on the test set.
            steps: of training that its weights have seen.
        """
        price = self.prices.at(architecture)
        return Outcome(
            name=name,
            accuracy=metrics.get("accuracy"),
            metrics=dict(metrics),
            cost=price["cost"],
            flops=price["flops"],
            parameters=int(price["parameters"]),
            widths=architecture.widths,
            steps=steps,
            width_multiplier=architecture.width_multiplier,
        )

    def firsts(self, outcomes: Sequence[Outcome]) -> list[float]:
        """The first metric of every cycle's last network, the larger the better."""
        others = (*NAMES.values(), SHRUNK, TENSORIZED)
        first, metric = next(iter(self.evaluator.metrics.items()))
        sign = -1.0 if metric.lower else 1.0
        return [sign * o.metrics[first] for o in outcomes if not o.name.startswith(others)]


def named(name: str, cycle: int) -> str:
    """A network's name, numbered from the second cycle on."""
    return name if cycle == 0 else f"{name} {cycle + 1}"


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
