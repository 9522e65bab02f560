"""What the passes walk: a function's equations with the terms of their operands and results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from regularizers.primitives.axes import Axis
from regularizers.primitives.jaxprs import Jaxpr, JaxprEqn, Primitive
from regularizers.primitives.orders import Order
from regularizers.primitives.terms import Axes, Source

# Which axes of the results each axis of each operand is found on again; see `flow`.
Destinations: TypeAlias = list[list[tuple[int, ...]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One equation with the terms of its operands and results."""

    eqn: JaxprEqn
    operands: tuple[Axes, ...]
    results: tuple[Axes, ...]
    source: Source  # of the equation and of the calls around it
    to: Destinations | None = None  # where its operands' axes go; None where nobody knows
    bodies: tuple[Body, ...] = ()  # of a call or control flow: the jaxprs that it runs
    moves: Mapping[int, Order] = field(default_factory=dict)  # of the first operand's axes

    @property
    def primitive(self) -> Primitive:
        """The primitive; the key of every table of rules."""
        return self.eqn.primitive


@dataclass(frozen=True, kw_only=True, slots=True)
class Body:
    """A jaxpr with the terms of its inputs, constants and outputs, and its live equations."""

    jaxpr: Jaxpr
    consts: tuple[Any, ...]
    inputs: tuple[Axes, ...]
    const_axes: tuple[Axes, ...]
    outputs: tuple[Axes, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One matrix product or convolution: what the costs count.

    Attributes:
        kernel: the path of the kernel variable; empty for a product of activations.
        count: how often one call runs it: the length of the scans around it (a `while` counts
            once), and once on every device of a `shard_map`.
        branches: the (`cond`, branch) pairs that it stands in, of which one runs.
    """

    primitive: Primitive
    layer: str
    kernel: str
    lhs: tuple[Axis, ...]
    rhs: tuple[Axis, ...]
    out: tuple[Axis, ...]
    params: Mapping[str, Any] = field(repr=False)
    count: int = 1
    branches: tuple[tuple[int, int], ...] = field(default=(), repr=False)
