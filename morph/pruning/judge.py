"""What a loss on calibration batches makes of a network whose channels are masked.

Masks are inputs of compiled programs, so that any number of them is tried without compiling again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from regularizers.channels.graph import ChannelGraph
from regularizers.errors import InputError
from regularizers.objective.slices import scaled, slices_of

# (variables, batch) -> scalar
Loss: TypeAlias = Callable[[Any, Any], Any]
Alive: TypeAlias = Mapping[str, np.ndarray]  # by group, bool [width]


@dataclass(frozen=True, kw_only=True, eq=False)
class Judge:
    """Measures masked networks.

    Attributes:
        graph: of the network.
        variables: its weights.
        loss: of variables on a batch.
        slope_loss: what scores are the slopes of; of variables, a batch and a random key.
        batches: the calibration set.
        groups: the names of those that may shrink.
    """

    graph: ChannelGraph
    variables: Any
    loss: Loss
    slope_loss: Callable[[Any, Any, Any], Any]
    batches: Sequence[Any]
    groups: Collection[str]

    def value(self, alive: Alive, removed: Collection[str] = ()) -> float:
        """The mean loss over the batches, with the other channels and some blocks silenced."""
        masks = self._masks(alive, removed)
        found = [self._loss(self.variables, masks, batch) for batch in self.batches]
        return float(np.mean(jax.device_get(found)))

    def scores(self, alive: Alive, removed: Collection[str] = ()) -> dict[str, np.ndarray]:
        """How much the loss minds each channel, by group; 0 for those that are dead.

        The mean over the batches of the squared derivative of the loss by a factor on the channel
        (Molchanov et al. 2019, "Importance estimation for neural network pruning", with gates).
        """
        masks = self._masks(alive, removed)
        keys = jax.random.split(jax.random.key(0), len(self.batches))
        squares: dict[str, Any] = dict.fromkeys(self.groups, 0.0)
        for key, batch in zip(keys, self.batches, strict=True):
            slopes = self._slopes(self.variables, masks, batch, key)
            squares = {name: squares[name] + jnp.square(slopes[name]) for name in squares}
        found = jax.device_get(squares)
        for name, s in found.items():
            if not np.isfinite(s).all():
                raise InputError(
                    f"the scores of {name!r} are not finite: the loss, or its derivative, is NaN "
                    "or infinite on the calibration batches. Look for that in the data, and for "
                    "labels that the loss does not know."
                )
        return {
            name: np.where(alive[name], s / len(self.batches), 0.0) for name, s in found.items()
        }

    def _masks(self, alive: Alive, removed: Collection[str]) -> dict[str, Any]:
        silent = {path for name in removed for path in self.graph.blocks[name].switch}
        return {
            "groups": {name: np.asarray(alive[name], np.float32) for name in self.groups},
            "switches": {path: np.float32(path not in silent) for path in self._switches},
        }

    @cached_property
    def _switches(self) -> tuple[str, ...]:
        """The paths of what silences blocks."""
        found = [path for block in self.graph.blocks.values() for path in block.switch]
        return tuple(dict.fromkeys(found))

    def _masked(self, variables: Any, masks: Mapping[str, Any]) -> Any:
        """The variables with their producing slices times the masks."""
        leaves, treedef = self.graph.leaves(variables)
        moved = []
        for path, leaf in leaves.items():
            if path in masks["switches"]:
                leaf = leaf * jnp.asarray(masks["switches"][path], leaf.dtype)
            moved.append(scaled(self.graph, path, leaf, self._slices, masks["groups"]))
        return jax.tree.unflatten(treedef, moved)

    @cached_property
    def _slices(self) -> Any:
        paths = {
            name: [member.path for member in self.graph.groups[name].members if member.produces]
            for name in self.groups
        }
        return slices_of(self.graph, paths)

    @cached_property
    def _loss(self) -> Callable[..., Any]:
        return jax.jit(lambda v, masks, batch: _scalar(self.loss(self._masked(v, masks), batch)))

    @cached_property
    def _slopes(self) -> Callable[..., Any]:
        def value(groups: Any, v: Any, masks: Any, batch: Any, key: Any) -> Any:
            return _scalar(
                self.slope_loss(self._masked(v, {**masks, "groups": groups}), batch, key)
            )

        slopes = jax.grad(value)
        return jax.jit(lambda v, masks, batch, key: slopes(masks["groups"], v, masks, batch, key))


def gone_with(graph: ChannelGraph, removed: Collection[str]) -> frozenset[str]:
    """The groups that go with some blocks, by name."""
    return frozenset(name for block in removed for name in graph.blocks[block].groups)


def _scalar(value: Any) -> Any:
    """A loss, if it is one.

    Raises:
        InputError: if it is no scalar.
    """
    shape = getattr(value, "shape", ())
    if shape != ():
        raise InputError(
            f"the loss must return a scalar, found an array of shape {list(shape)}; take its mean"
        )
    return jnp.asarray(value, jnp.float32)


def matching(fn: Callable[[Any, Any], Any], variables: Any) -> tuple[Loss, Callable[..., Any]]:
    """Without labels: the loss is how far outputs are from the network's own.

    Args:
        fn: `(variables, batch) -> outputs`, a tree of arrays.
        variables: whose outputs are to be kept.

    Returns:
        The mean squared difference over the own outputs' variance; and, of which slopes are taken
        (those of a difference that is zero are zero), the outputs times random numbers: its mean
        squared slope is that of the outputs themselves (Hutchinson 1990).
    """

    def pairs(now: Any, batch: Any) -> list[tuple[Any, Any]]:
        own = jax.tree.map(jax.lax.stop_gradient, fn(variables, batch))
        leaves = zip(jax.tree.leaves(fn(now, batch)), jax.tree.leaves(own), strict=True)
        return [(a, b) for a, b in leaves if jnp.issubdtype(b.dtype, jnp.floating)]

    def loss(now: Any, batch: Any) -> Any:
        return sum(jnp.mean(jnp.square(a - b)) / (jnp.var(b) + 1e-12) for a, b in pairs(now, batch))

    def slope_loss(now: Any, batch: Any, key: Any) -> Any:
        total = jnp.float32(0.0)
        for i, (a, b) in enumerate(pairs(now, batch)):
            noise = jax.random.normal(jax.random.fold_in(key, i), a.shape, a.dtype)
            total += jnp.sum(noise * a) / jnp.sqrt(a.size * (jnp.var(b) + 1e-12))
        return total

    return loss, slope_loss
