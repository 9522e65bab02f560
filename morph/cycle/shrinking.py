"""A shrink phase: who measures, who decides, and what is cut at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from morph.architecture.architecture import Architecture, names_in
from morph.architecture.shrink import shrink
from morph.budget.amounts import floors_of
from morph.budget.controller import Controller, Schedule
from morph.budget.traces import Traces
from morph.budget.trim import strongest_within
from morph.cycle.asked import target_cost
from morph.cycle.config import CycleConfig
from morph.network import Variables
from regularizers.channels.graph import ChannelGraph
from regularizers.channels.naming import matched
from regularizers.costs.cost import Cost
from regularizers.objective.plan import FRESH
from regularizers.objective.regularizer import NetworkRegularizer
from regularizers.patterns import parse


@dataclass(frozen=True, kw_only=True)
class Shrinking:
    """What a shrink phase has besides: who measures, and who decides.

    Attributes:
        measure: from params to strengths; compiled once.
        controller: decides what goes.
    """

    measure: Callable[[Any], dict[str, np.ndarray]]
    controller: Controller

    @property
    def regularizer(self) -> NetworkRegularizer:
        """What pulls on the channels and blocks of the network at the phase's start."""
        return self.controller.regularizer


def begin(
    config: CycleConfig, graph: ChannelGraph, budget: float, steps: int, every: int
) -> Shrinking:
    """The regularizer and the budget controller of a shrink phase.

    Args:
        config: how to learn.
        graph: of the network to shrink.
        budget: to shrink to, in the unit of the target's cost.
        steps: of the phase.
        every: steps between two looks.
    """
    regularizer = make_regularizer(config, graph, target_cost(config, graph), left=True)
    compiled = jax.jit(regularizer.strengths)

    def measure(params: Any) -> dict[str, np.ndarray]:
        return jax.device_get(compiled(params))

    return Shrinking(
        measure=measure,
        controller=make_controller(config, regularizer, budget, steps, every, left=True),
    )


def make_controller(
    config: CycleConfig,
    regularizer: NetworkRegularizer,
    budget: float,
    steps: int,
    every: int,
    *,
    left: bool = False,
) -> Controller:
    """What decides which channels go.

    Args:
        config: how to learn.
        regularizer: of the network to shrink.
        budget: in the unit of the cost.
        steps: of the phase.
        every: steps between two looks.
        left: as of `make_regularizer`.
    """
    return Controller(
        regularizer=regularizer,
        schedule=Schedule(
            budget_ratio=budget / regularizer.seed_cost,
            start=steps // 20,
            end=int(steps * (1.0 - config.settle)),
        ),
        every=every,
        min_width=make_floors(config, regularizer.graph, left=left),
        round_to=config.round_to,
    )


@dataclass(frozen=True, kw_only=True)
class Trimmed:
    """What is left at the end of a shrink phase.

    Attributes:
        step: relative to the network at its start.
        masked: that network's variables, with what goes set to zero.
        small: those of the network that is left.
    """

    step: Architecture
    masked: Variables
    small: Variables


def trimmed(
    config: CycleConfig,
    traces: Traces,
    start: Architecture,
    regularizer: NetworkRegularizer,
    params: Any,
    saliency: Mapping[str, np.ndarray],
    variables: Variables,
    budget: float,
    reference: Variables | None = None,
) -> Trimmed:
    """Removes the silent blocks, then cuts channels until the budget is met.

    Args:
        config: how to learn.
        traces: of the seed network.
        start: the architecture that the phase began with.
        regularizer: of that network.
        params: what strengths are measured of.
        saliency: of the channels.
        variables: what is kept, without gates.
        budget: in the unit of the target's cost.
        reference: as of `make_regularizer`.
    """
    graph = regularizer.graph
    removed = regularizer.silent_blocks(params)
    if not removed:
        worth = regularizer.worth(_strengths(regularizer, params), saliency)
        step = shrink(graph, _keep(config, graph, regularizer, worth, budget))
    else:
        first = shrink(graph, {}, removed=removed)
        left = first.take(graph.mask({**variables, "params": params}, {}, removed))
        rest = traces.of(start.then(first))
        unit = reference if reference is None else first.take(reference)
        cost = target_cost(config, rest)
        own = make_regularizer(config, rest, cost, left=True, reference=unit)
        names = names_in(first, Architecture.of_seed(rest))
        worth = own.worth(
            _strengths(own, left["params"]),
            {g.group: saliency[names.get(g.group, g.group)] for g in own.groups},
        )
        step = first.then(shrink(rest, _keep(config, rest, own, worth, budget)))
    alive = {
        name: np.isin(np.arange(group.seed_width), group.parents)
        for name, group in step.groups.items()
        if group.width
    }
    masked = graph.mask(variables, alive, removed)
    return Trimmed(step=step, masked=masked, small=step.take(masked))


def _strengths(regularizer: NetworkRegularizer, params: Any) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = jax.device_get(jax.jit(regularizer.strengths)(params))
    return found


def _keep(
    config: CycleConfig,
    graph: ChannelGraph,
    regularizer: NetworkRegularizer,
    worth: Mapping[str, np.ndarray],
    budget: float,
) -> dict[str, np.ndarray]:
    return strongest_within(
        regularizer.cost,
        worth,
        budget,
        min_width=make_floors(config, graph, left=True),
        round_to=config.round_to,
        fill=True,
    )


def make_regularizer(
    config: CycleConfig,
    graph: ChannelGraph,
    cost: Cost,
    *,
    left: bool = False,
    reference: Variables | None = None,
) -> NetworkRegularizer:
    """What pulls on the channels of a network.

    Args:
        config: names the penalties and their strengths.
        graph: of the seed network, or of one that is left of it.
        cost: of that graph.
        left: the latter: a pattern may match nothing, if all that it matched of the seed is gone.
        reference: variables whose mean strengths are the unit; a freshly drawn network if None.

    Raises:
        ValueError: if the penalties do not fit the graph, or a pattern matches nothing of the seed.
    """
    penalty: str | dict[str, str] = config.penalty
    if "=" in config.penalty:
        penalty = parse(config.penalty, "penalty", str)
    strengths = parse(config.strengths, "strengths", float)
    if left:
        penalty = penalty if isinstance(penalty, str) else matched(graph, penalty)
        strengths = matched(graph, strengths)
    has_gates = "gates" in (penalty if isinstance(penalty, str) else penalty.values())
    return NetworkRegularizer(
        graph,
        cost,
        penalty,
        threshold=0.0,
        relative_to=FRESH if reference is None else reference,
        strengths=strengths,
        blocks=config.blocks and not has_gates,
    )


def make_floors(config: CycleConfig, graph: ChannelGraph, *, left: bool = False) -> dict[str, int]:
    """The least width of every group; see `make_regularizer`.

    Raises:
        ValueError: if a floor is none, or a pattern matches nothing of the seed.
    """
    floors = parse(config.floors, "floors", int)
    return floors_of(graph, config.min_width, matched(graph, floors) if left else floors)
