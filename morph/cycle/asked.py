"""What a configuration names: its cost, and its optimizer."""

from __future__ import annotations

import optax

from morph.budget.amounts import parse_budget
from morph.cycle.config import CycleConfig
from morph.errors import ConfigError
from morph.training.optimizers import make_optimizer
from regularizers.channels.graph import ChannelGraph
from regularizers.costs.cost import Cost
from regularizers.errors import InputError
from regularizers.named import cost_named


def target_cost(config: CycleConfig, graph: ChannelGraph) -> Cost:
    """What a run of `config` pays for.

    Raises:
        ConfigError: if there is no cost of that name; the message lists near matches.
    """
    try:
        return cost_named(graph, config.target)
    except InputError as error:
        raise ConfigError(f"target: {error}") from error


def shrink_to_of(config: CycleConfig, cost: Cost) -> float:
    """What a run shrinks to, in the unit of the cost: its budget, if it does not widen."""
    return parse_budget(config.budget if config.shrink_to is None else config.shrink_to, cost)


def configured_optimizer(rate: optax.Schedule, config: CycleConfig) -> optax.GradientTransformation:
    """The optimizer that a configuration names.

    Args:
        rate: the learning rate at every step of a phase.
        config: names it.
    """
    return make_optimizer(
        config.optimizer, rate, weight_decay=config.weight_decay, clip_norm=config.clip_norm
    )
