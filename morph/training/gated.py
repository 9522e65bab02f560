"""A network whose channels are gated; see `regularizers.objective.gates`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import jax.numpy as jnp

from morph.network import Network, Variables
from regularizers.channels.graph import ChannelGraph
from regularizers.errors import InputError
from regularizers.objective import gates

CLOCK = "gate_clock"  # a collection: {"steps": how often the gates were sampled}
# (of the temperature at the first step, at the last; 0 or 1 forward?)
MODES: Mapping[str, tuple[float, float, bool]] = {
    "annealed": (1.0, 0.1, False),
    "straight_through": (1.0, 1.0, True),
}


def gated_network(
    network: Network,
    graph: ChannelGraph,
    groups: Collection[str] | None = None,
    *,
    steps: int,
    mode: str = "annealed",
) -> Network:
    """The network with a stochastic gate on every channel of some groups.

    Its variables are those of `network` and, as `with_gates` adds them, the logits and a clock.
    `forward` samples gates from the step's key, at a temperature that follows the clock; `predict`
    is deterministic. `regularizers.objective.gates.fold` ends it.

    Args:
        network: what is gated.
        graph: its channel graph, traced from `network.predict`.
        groups: which; all that can be if not given.
        steps: how long the temperature falls.
        mode: a key of `MODES`.

    Raises:
        ValueError: if the mode is unknown, or a group cannot be gated.
    """
    if mode not in MODES:
        raise InputError(f"unknown gate mode {mode!r}; known are {', '.join(map(repr, MODES))}")
    start, end, straight_through = MODES[mode]
    temperature = gates.annealed(start, end, steps)
    forward = gates.gated(network.forward, graph, groups)
    predict = gates.gated(network.predict, graph, groups)

    def gated_forward(variables: Variables, x: Any, key: Any) -> tuple[Any, Variables]:
        clock, rest = variables[CLOCK]["steps"], _without_clock(variables)
        output, updates = forward(
            rest,
            x,
            key,
            gate_key=key,
            temperature=temperature(clock),
            straight_through=straight_through,
        )
        return output, {**updates, CLOCK: {"steps": clock + 1}}

    return Network(
        init=lambda key, x: with_gates(network.init(key, x), graph, groups),
        predict=lambda variables, x: predict(_without_clock(variables), x),
        forward=gated_forward,
    )


def with_gates(
    variables: Variables, graph: ChannelGraph, groups: Collection[str] | None = None
) -> Variables:
    """The variables with fresh logits among the parameters, and a clock at zero."""
    logits = gates.init(graph, groups)
    params = {**variables["params"], gates.NAME: logits}
    return {**variables, "params": params, CLOCK: {"steps": jnp.zeros((), jnp.int32)}}


def folded(graph: ChannelGraph, variables: Variables) -> Variables:
    """The variables of the network without gates: what is shut in `predict` is zero."""
    return dict(gates.fold(graph, _without_clock(variables)))


def _without_clock(variables: Variables) -> Variables:
    return {name: value for name, value in variables.items() if name != CLOCK}
