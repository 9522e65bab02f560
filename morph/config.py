"""What a run is asked for, and whether it can be had."""

from __future__ import annotations

from dataclasses import dataclass

from morph.budget import check_feasible
from morph.expand import BudgetError
from regularizers.channels.graph import ChannelGraph
from regularizers.costs.cost import Cost
from regularizers.costs.named import cost_named
from regularizers.objective import NetworkRegularizer


@dataclass(frozen=True, kw_only=True)
class CycleConfig:
    """How to learn a structure. Costs are ratios to the seed's.

    Attributes:
        target: what is paid for: a cost by name, or a weighted sum; see `costs.named`.
        budget: the cost to shrink to.
        expand_budget: the cost to expand to after shrinking.
        cycles: how often to shrink and expand.
        seed_steps, shrink_steps, retrain_steps: training steps of each phase.
        settle: the share of the shrink phase that is left to recover at the budget.
        penalty: what makes a channel strong: `gamma` or `group_lasso`.
        batch_size, learning_rate, weight_decay: of all phases.
        shrink_learning_rate: the peak in the shrink phase, which starts from trained weights.
        min_width: no group gets narrower.
        round_to: expanded widths become multiples of it.
        baseline: also train the seed with one uniform width multiplier at the final cost.
        seed: of everything random.
    """

    target: str = "flops"
    budget: float = 0.5
    expand_budget: float = 1.0
    cycles: int = 1
    seed_steps: int = 200
    shrink_steps: int = 400
    retrain_steps: int = 300
    settle: float = 0.3
    penalty: str = "gamma"
    batch_size: int = 128
    learning_rate: float = 0.1
    shrink_learning_rate: float = 0.05
    weight_decay: float = 1e-4
    min_width: int = 1
    round_to: int = 1
    baseline: bool = False
    seed: int = 0


class ConfigError(ValueError):
    """Settings that make no sense, or that this network cannot follow."""


def target_cost(config: CycleConfig, graph: ChannelGraph) -> Cost:
    """What a run of `config` pays for.

    Raises:
        ConfigError: if there is no cost of that name; the message lists near matches.
    """
    try:
        return cost_named(graph, config.target)
    except ValueError as error:
        raise ConfigError(f"target: {error}") from error


def check_config(config: CycleConfig, cost: Cost, graph: ChannelGraph) -> None:
    """Raises if a run of `config` makes no sense or cannot meet its budget.

    Raises:
        ConfigError: naming the setting. BudgetError: if a budget is out of reach.
    """
    steps = {"seed_steps": config.seed_steps, "retrain_steps": config.retrain_steps}
    for name, value in {**steps, "shrink_steps": config.shrink_steps}.items():
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, found {value}")
    if not 0.0 < config.budget <= 1.0:
        raise BudgetError(
            f"budget must be a ratio to the seed's cost, above 0 and at most 1; found "
            f"{config.budget}"
        )
    if config.expand_budget < config.budget:
        raise BudgetError(
            f"expand_budget ({config.expand_budget}) must be at least the budget "
            f"({config.budget}): it is what the shrunk network is widened to"
        )
    if config.cycles < 1:
        raise ConfigError(f"cycles must be at least 1, found {config.cycles}")
    try:
        regularizer = NetworkRegularizer(graph, cost, config.penalty, threshold=0.0)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    check_feasible(regularizer, config.budget * cost(), config.min_width)
