"""Whether a configuration makes sense for a network."""

from __future__ import annotations

from morph.budget.amounts import parse_budget
from morph.budget.controller import check_feasible
from morph.cycle.asked import shrink_to_of
from morph.cycle.config import CycleConfig, check_target
from morph.cycle.shrinking import make_floors, make_regularizer
from morph.cycle.unused import UNUSED_BY_SWEEP, check_unused
from morph.errors import BudgetError, ConfigError
from morph.settings import check_settings, names_of
from morph.tensorize.layers import kernels_of
from morph.training.losses import SMOOTHED
from morph.training.metrics import METRICS
from morph.vocabulary import KINDS
from regularizers.channels.graph import ChannelGraph
from regularizers.costs.cost import Cost
from regularizers.costs.flops import flops
from regularizers.messages import near
from regularizers.patterns import matching, parse, spells


def check_is_config(config: object) -> None:
    """Raises a ConfigError if it is no configuration at all."""
    if not isinstance(config, CycleConfig):
        raise ConfigError(f"config must be a CycleConfig, found {config!r}")


def check_training(config: CycleConfig) -> None:
    """Raises if a setting of the training is unknown or makes no sense.

    Raises:
        ConfigError: naming the setting, what it is, and what it may be.
    """
    check_is_config(config)
    check_settings(config)
    check_target(config.target)
    if not names_of(config.metrics):
        raise ConfigError(f"metrics: at least one of {', '.join(METRICS)}, found none")
    if config.label_smoothing and config.loss not in SMOOTHED:
        raise ConfigError(
            f"label_smoothing is {config.label_smoothing}, but only the losses "
            f"{' and '.join(SMOOTHED)} have labels to smooth; found {config.loss}"
        )
    if config.tensorize:
        if config.patience:
            raise ConfigError(
                f"tensorize is {config.tensorize!r} and patience {config.patience}: which cycle is "
                "the best is known only after the last; tensorize its network by "
                "morph.tensorize_plan, or set patience=0"
            )
        for kind in tensor_kinds(config).values():
            if kind not in KINDS:
                raise ConfigError(f"tensorize: there is no {kind!r}{near(kind, KINDS)}")
    if config.shrink_to is None and config.cycles > 1:
        raise ConfigError(
            f"cycles is {config.cycles}, but the first already ends at the budget; to shrink "
            "further and widen back in each, say what to shrink to: shrink_to=0.5"
        )


def check_side_by_side(config: CycleConfig) -> None:
    """Raises if runs side by side cannot be trained as a configuration says.

    Raises:
        ConfigError: naming the setting, and why it makes no sense or has no use.
    """
    check_is_config(config)
    check_unused(config, UNUSED_BY_SWEEP)
    check_training(config)
    if "gates" in config.penalty:
        raise ConfigError(
            f"penalty is {config.penalty!r}, but runs side by side hold channels at zero and have "
            "no gates; choose group_lasso or gamma"
        )


def check_structure(config: CycleConfig, graph: ChannelGraph, *, started: bool = False) -> None:
    """Raises if a run of `config` makes no sense for a network, whatever is paid for.

    It comes before the cost is counted, which may have to be timed.

    Args:
        config: how to learn.
        graph: of the seed network.
        started: from given weights: the seed is not trained.

    Raises:
        ConfigError, InputError: naming the setting.
    """
    steps = {"retrain_steps": config.retrain_steps}
    if not started:
        steps["seed_steps"] = config.seed_steps
    if config.tensorize:
        steps["tensorize_steps"] = config.tensorize_steps
    for name, value in {**steps, "shrink_steps": config.shrink_steps}.items():
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, found {value}")
    if config.tensorize:
        matching(list(tensor_kinds(config)), list(kernels_of(graph)), "tensorize")
    make_regularizer(config, graph, flops(graph))
    make_floors(config, graph)


def check_config(config: CycleConfig, cost: Cost, graph: ChannelGraph) -> None:
    """Raises if a run of `config`, whose structure was checked, cannot meet its budget.

    Raises:
        BudgetError: naming the setting.
    """
    name = "budget" if config.shrink_to is None else "shrink_to"
    asked, goal = getattr(config, name), shrink_to_of(config, cost)
    if goal > cost.seed:
        raise BudgetError(
            f"{name} is what the seed is shrunk to, at most its own cost of "
            f"{cost.show(cost.seed)}; found {asked}, which is {cost.show(goal)}"
        )
    if parse_budget(config.budget, cost) < goal:
        raise BudgetError(
            f"shrink_to ({config.shrink_to}) must be at most the budget ({config.budget}), which "
            "the shrunk network is widened back to"
        )
    if config.tensorize and parse_budget(config.tensorize_budget, cost) >= cost.seed:
        raise BudgetError(
            f"tensorize_budget ({config.tensorize_budget}) must be below the seed's cost of "
            f"{cost.show(cost.seed)}"
        )
    regularizer, floors = make_regularizer(config, graph, cost), make_floors(config, graph)
    check_feasible(regularizer, goal, floors, config.round_to)


def tensor_kinds(config: CycleConfig) -> dict[str, str]:
    """The format for each pattern of kernels; all match one of the seed network's."""
    named = config.tensorize if "=" in config.tensorize else f"*={config.tensorize}"
    return parse(named, "tensorize", str)


def kinds_left(config: CycleConfig, graph: ChannelGraph) -> dict[str, str]:
    """`tensor_kinds` of a network that is left of the seed, of which some kernels may be gone."""
    kernels = kernels_of(graph)
    return {
        pattern: kind
        for pattern, kind in tensor_kinds(config).items()
        if any(spells(pattern, path) for path in kernels)
    }
