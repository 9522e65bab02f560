"""What a shrink phase has of its configuration: the regularizer, the budget, what is cut out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from morph.architecture.architecture import Architecture
from morph.budget.amounts import Amount, floors_of
from morph.budget.budget import Budget, Rest
from morph.budget.traces import Traces
from morph.cycle.asked import target_cost
from morph.cycle.config import CycleConfig
from morph.network import Variables
from morph.training.layout import even_after
from morph.vocabulary import DECAY, THRESHOLD
from regularizers.channels.graph import ChannelGraph
from regularizers.channels.naming import matched
from regularizers.costs.cost import Cost
from regularizers.objective.plan import FRESH
from regularizers.objective.regularizer import NetworkRegularizer
from regularizers.patterns import parse


def make_budget(
    config: CycleConfig,
    regularizer: NetworkRegularizer,
    limit: float,
    steps: int,
    every: int,
    *,
    left: bool = False,
    last: bool = False,
) -> Budget:
    """What decides which channels go.

    Args:
        config: how to learn.
        regularizer: of the network to shrink.
        limit: in the unit of the cost.
        steps: of the phase.
        every: steps between two looks.
        left: as of `make_regularizer`.
        last: no training follows, so that the network has to recover in this phase.
    """
    settle = config.settle
    if settle is None and config.penalty == DECAY and not last:
        settle = 0.0
    return Budget(
        regularizer,
        Amount(limit),
        steps=steps,
        every=every,
        settle=settle,
        pull=DECAY if config.penalty == DECAY else THRESHOLD,
        min_width=config.min_width,
        floors=_floors(config, regularizer.graph, left=left),
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

    @classmethod
    def of(cls, step: Architecture, graph: ChannelGraph, variables: Variables) -> Trimmed:
        """Cuts a network out of another one.

        Args:
            step: what is left.
            graph: of the network that it is left of.
            variables: of that network, without gates.
        """
        removed = [block.name for block in step.removed]
        masked = graph.mask(variables, cls.alive(step), removed)
        return cls(step=step, masked=masked, small=step.take(even_after(step, masked)))

    @staticmethod
    def alive(step: Architecture) -> dict[str, np.ndarray]:
        """The channels that are left, bool [width] by group; groups that are gone are left out."""
        return {
            name: np.isin(np.arange(group.seed_width), group.parents)
            for name, group in step.groups.items()
            if group.width
        }


def regularizer_of_rest(
    config: CycleConfig,
    traces: Traces,
    start: Architecture,
    reference: Variables | None = None,
) -> Rest:
    """The regularizer of what is left of a network once blocks are gone, traced again.

    Args:
        config: how to learn.
        traces: of the seed network.
        start: the architecture that the phase began with.
        reference: as of `make_regularizer`.
    """

    def rest(step: Architecture) -> NetworkRegularizer:
        graph = traces.of(start.then(step))
        unit = reference if reference is None else step.take(reference)
        cost = target_cost(config, graph)
        return make_regularizer(config, graph, cost, left=True, reference=unit)

    return rest


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
    if penalty == DECAY:
        penalty = "group_lasso"  # which tells what is dead
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


def make_floors(config: CycleConfig, graph: ChannelGraph) -> dict[str, int]:
    """The least width of every group of the seed network.

    Raises:
        ValueError: if a floor is none, or a pattern matches nothing.
    """
    return floors_of(graph, config.min_width, _floors(config, graph))


def _floors(config: CycleConfig, graph: ChannelGraph, *, left: bool = False) -> dict[str, int]:
    floors = parse(config.floors, "floors", int)
    return matched(graph, floors) if left else floors
