"""The channel graphs of a seed network and of what becomes of it, each traced once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax

from morph.architecture.architecture import Architecture
from morph.network import Network
from regularizers.channels.graph import ChannelGraph
from regularizers.channels.trace import trace_channels


@dataclass(frozen=True, kw_only=True)
class Traces:
    """What is known of a seed network without training it.

    Attributes:
        network: the seed network.
        variables: its variables, abstract.
        x: an input.
        graph: its channel graph.
    """

    network: Network
    variables: Any
    x: Any
    graph: ChannelGraph
    _known: list[tuple[Architecture, ChannelGraph]] = field(default_factory=list, repr=False)

    @classmethod
    def of_seed(cls, network: Network, key: Any, x: Any) -> Traces:
        """Traces the seed network."""
        variables = jax.eval_shape(network.init, key, x)
        graph = trace_channels(network.predict, variables, x)
        return cls(network=network, variables=variables, x=x, graph=graph)

    def of(self, architecture: Architecture) -> ChannelGraph:
        """The channel graph of the network at an architecture, relative to the seed."""
        if not self._known:
            self._known.append((Architecture.of_seed(self.graph), self.graph))
        for other, graph in self._known:
            if _alike(architecture, other):
                return graph
        like = architecture.abstract(self.variables)
        graph = trace_channels(self.network.resized(architecture).predict, like, self.x)
        self._known.append((architecture, graph))
        return graph


def _alike(one: Architecture, other: Architecture) -> bool:
    """Whether two architectures of one seed are the same network, whatever is told of them."""
    return (
        one.groups == other.groups
        and one.removed == other.removed
        and one.factorized == other.factorized
    )
