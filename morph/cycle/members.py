"""The runs of a sweep: what one is, what it becomes, and how their states lie in one array."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from morph.architecture.architecture import Architecture
from morph.budget.controller import Look
from morph.network import Variables
from regularizers.objective.proximal import ProximalState
from regularizers.objective.regularizer import NetworkRegularizer

Record: TypeAlias = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Member:
    """One run of a sweep: a budget, as a ratio to the seed's cost, and a random seed."""

    budget: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A network at the end of a stage.

    Attributes:
        architecture: relative to the seed network.
        variables: at its widths.
        metrics: on the test examples.
        records: of every look: phase, step, loss, and what the controller saw.
    """

    architecture: Architecture
    variables: Variables
    metrics: Mapping[str, float]
    records: tuple[Record, ...]

    @property
    def accuracy(self) -> float | None:
        """On the test examples, a share; None if it was not asked for."""
        return self.metrics.get("accuracy")


@dataclass(frozen=True, kw_only=True, eq=False)
class Pulling:
    """What all shrinking shares: compiled once, however many runs there are.

    Attributes:
        regularizer: measures strengths and costs.
        reference: the variables whose mean strengths are the unit.
        strengths_of_all: of stacked parameters.
        tx: the proximal optimizer.
    """

    regularizer: NetworkRegularizer
    reference: Variables
    strengths_of_all: Callable[[Any], Any]
    tx: optax.GradientTransformation

    @classmethod
    def of(
        cls,
        regularizer: NetworkRegularizer,
        reference: Variables,
        tx: optax.GradientTransformation,
    ) -> Pulling:
        """With what measures strengths, compiled."""
        return cls(
            regularizer=regularizer,
            reference=reference,
            strengths_of_all=jax.jit(jax.vmap(regularizer.strengths)),
            tx=tx,
        )


def kept(architecture: Architecture) -> dict[str, np.ndarray]:
    """Which of the seed's channels an architecture has, bool [width] by group."""
    return {
        name: np.isin(np.arange(group.seed_width), group.parents)
        for name, group in architecture.groups.items()
    }


def seen(look: Look) -> Record:
    """What a controller saw, for a record; costs over the seed's."""
    return {
        "cost_ratio": look.cost_ratio,
        "target_ratio": look.target_ratio,
        "strength": look.strength,
    }


def obeyed(states: ProximalState, looks: Sequence[Look]) -> ProximalState:
    """The stacked states of the optimizer with what was decided for each run."""
    each = [look.obeyed(states) for look in looks]
    return states._replace(
        strength=jnp.stack([one.strength for one in each]),
        protected=stacked([one.protected for one in each]),
        held=stacked([one.held for one in each]),
    )


def stacked(trees: Sequence[Any]) -> Any:
    """Trees as one, whose leaves are [runs, ...]."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def unstacked(tree: Any, count: int) -> list[Any]:
    """The trees that `stacked` made one of."""
    return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(count)]
