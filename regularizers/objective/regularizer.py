"""The objective: penalty x marginal cost, as a term of the loss or as a proximal step.

    loss term      strength * sum_g multiplier_g * marginal_cost_g * sum_c strength_gc
    proximal step  strength_gc <- max(0, strength_gc - step * multiplier_g * marginal_cost_g)

Marginal costs are the gradient of the one cost function, in its smooth form, at the alive widths,
divided by the seed's cost, so that `strength` (the field's lambda) is dimensionless and carries
over between models.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from regularizers.channels.calls import flat_paths
from regularizers.channels.graph import ChannelGraph
from regularizers.channels.naming import by_group
from regularizers.costs.cost import Cost
from regularizers.costs.form import SMOOTH
from regularizers.errors import InputError
from regularizers.messages import near
from regularizers.objective import gates
from regularizers.objective.blocks import (
    BlockStrength,
    block_costs,
    block_strengths,
    spared,
)
from regularizers.objective.penalties import COMBINATIONS, PENALTIES, Strength
from regularizers.objective.protection import AJAR, FLOOR, PRESSURE
from regularizers.objective.slices import Slices, scaled, slices_of

LEAST = 1e-30  # what a channel that is alive is worth at least
FRESH = "fresh"  # units of strength: those of a freshly drawn layer


class NetworkRegularizer:
    """Measures the strength of every channel and pulls it to zero by what it costs.

    Args:
        graph: the channel graph of the seed network.
        cost: what is paid for, e.g. `reg.flops(graph)`.
        penalty: `"group_lasso"`, `"gamma"` or `"gates"`; or one per pattern, of which the first
            that matches a group wins: `{"Conv_*": "gamma", "*": "group_lasso"}` (see `patterns`).
            Gates need their logits among the parameters, and the network `gates.gated`.
        combine: how the members of a group agree: `"max"`, `"l2"` or `"any"`.
        l1_share: share of mean |w| in group lasso, 0 to 1.
        threshold: a channel is alive while its strength is above it. Use 0 with `proximal`.
        inexact: also pull on groups whose dead channels would not be exactly zero.
        relative_to: measure every strength in units of its group's mean in these variables, e.g.
            the seed's, or, if `"fresh"`, of a freshly drawn layer (1 for gates and gamma,
            1/sqrt(fan-in) for a kernel). Weights of a wide layer are smaller than those of a narrow
            one, and not worth less for it. Where penalties differ, also because a group falls back
            to another, and nothing is given, it is `"fresh"`, so that they can compete.
        strengths: multipliers of the strength (lambda) per pattern: `{"Dense_*": 0.1}`; 1 where
            none matches, and 0 leaves a group alone.
        blocks: also pull on blocks (`ChannelGraph.blocks`). While one weakens its channels count
            for less; one that is silent can go (`silent_blocks`).

    Raises:
        ValueError: if a name is unknown, a pattern matches nothing, a group has no penalty, or
            there is no group to pull on.

    Example:
        >>> regularizer = NetworkRegularizer(graph, flops(graph), "gamma")  # doctest: +SKIP
        >>> loss = task_loss + 0.1 * regularizer(variables)                  # doctest: +SKIP
    """

    def __init__(
        self,
        graph: ChannelGraph,
        cost: Cost,
        penalty: str | Mapping[str, str] = "group_lasso",
        *,
        combine: str = "max",
        l1_share: float = 0.0,
        threshold: float = 1e-3,
        inexact: bool = False,
        relative_to: Any = None,
        strengths: Mapping[str, float] | None = None,
        blocks: bool = False,
    ) -> None:
        asked = {"*": penalty} if isinstance(penalty, str) else dict(penalty)
        known: Sequence[tuple[str, Collection[str]]] = [
            *((name, PENALTIES) for name in asked.values()),
            (combine, COMBINATIONS),
            *([(relative_to, (FRESH,))] if isinstance(relative_to, str) else []),
        ]
        for name, table in known:
            if name not in table:
                raise InputError(f"unknown option {name!r}{near(name, table)}")
        if not 0.0 <= l1_share <= 1.0:
            raise InputError(f"l1_share must be between 0 and 1, found {l1_share}")
        self.graph = graph
        self.cost = cost
        self.combine = COMBINATIONS[combine]
        self.l1_share = l1_share
        self.threshold = threshold
        self.seed_cost = float(cost())
        if not self.seed_cost > 0.0:
            raise InputError(f"the seed's cost must be positive, found {self.seed_cost}")
        pulled = [g for g in graph.groups.values() if g.exact or inexact]
        chosen = self._chosen(asked, [group.name for group in pulled])
        self.multipliers = self._checked(strengths or {})
        self.groups: tuple[Strength, ...] = tuple(
            PENALTIES[chosen[group.name]](graph, group)
            for group in pulled
            if self.multipliers.get(group.name, 1.0) > 0.0
        )
        if not self.groups:
            raise InputError(
                "the network has no channel group that can be shrunk exactly; "
                "graph.explain(path) says why an axis is fixed, inexact=True includes the others."
                + (" Some have a strength of 0." if pulled else "")
            )
        self.blocks: tuple[BlockStrength, ...] = ()
        if relative_to is None and len({g.penalty for g in self.groups}) > 1:
            relative_to = FRESH
        self.is_fresh = isinstance(relative_to, str)
        self.scale: dict[str, float] = {}
        if relative_to is not None and not self.is_fresh:
            means = {name: float(s.mean()) for name, s in self.strengths(relative_to).items()}
            self.scale = {name: 1.0 / mean for name, mean in means.items() if mean > 0.0}
        if blocks:
            self.blocks = block_strengths(graph, {g.group for g in self.groups})

    def _chosen(self, asked: Mapping[str, str], groups: list[str]) -> dict[str, str]:
        """The penalty of each group.

        Raises:
            ValueError: if a pattern matches nothing, or a group none of them.
        """
        if list(asked) == ["*"]:
            return dict.fromkeys(groups, asked["*"])
        chosen = by_group(self.graph, asked, "penalty")
        for name in groups:
            if name not in chosen:
                raise InputError(
                    f"penalty: no pattern of {', '.join(map(repr, asked))} matches the group "
                    f"{name!r}; add '*' as the last one, e.g. '*': 'group_lasso'"
                )
        return chosen

    def _checked(self, strengths: Mapping[str, float]) -> dict[str, float]:
        """The multiplier of each group that a pattern matches.

        Raises:
            ValueError: if one is negative or not finite, or a pattern matches nothing.
        """
        for pattern, value in strengths.items():
            if not 0.0 <= value < math.inf:
                raise InputError(
                    f"strengths: that of {pattern!r} must be a number of at least 0, found {value}"
                )
        return by_group(self.graph, strengths, "strengths")

    def __call__(self, variables: Any) -> Float[Array, ""]:
        """The loss term, dimensionless: C(A_in R_out + A_out R_in) / C(seed).

        Args:
            variables: the traced variables, or only their `params`.
        """
        strengths = self.strengths(variables)
        alive = jax.lax.stop_gradient(self.alive_widths(strengths))
        pulled = jnp.stack(
            [
                self.multipliers.get(n, 1.0) * strengths[n].sum()
                if n in strengths
                else jnp.float32(0)
                for n in self.cost.groups
            ]
        )
        _, term = jax.jvp(self._smooth, (alive,), (pulled,))
        return term / self.seed_cost

    def strengths(self, variables: Any) -> dict[str, Float[Array, " width"]]:
        """The strength of every channel, by group; of a channel in a block that weakens, less."""
        leaves = self._by_path(variables)
        own = self._own_strengths(leaves)
        for one in self.blocks:
            share = jnp.minimum(one.strength(leaves), 1.0)
            own |= {name: own[name] * share for name in one.groups}
        return own

    def _own_strengths(self, leaves: Mapping[str, Any]) -> dict[str, Float[Array, " width"]]:
        """The strength of every channel by what produces it."""
        return {
            g.group: self.scale.get(g.group, 1.0)
            * self.combine(
                [
                    source.strength(leaves[source.path], g.width, self.l1_share)
                    / (source.fresh if self.is_fresh else 1.0)
                    for source in g.measured
                ]
            )
            for g in self.groups
        }

    def worth(
        self, strengths: Mapping[str, Any], saliency: Mapping[str, Any] | None = None
    ) -> dict[str, np.ndarray]:
        """What is compared where channels compete: over its multiplier, 0 for dead channels.

        A channel of half the multiplier is pulled half as hard, and so is worth twice as much.

        Args:
            strengths: of all channels; they tell which are dead.
            saliency: what is compared; the strengths if not given, all zero, or not of all groups.
        """
        values = strengths
        if saliency and set(strengths) <= set(saliency) and any(map(np.any, saliency.values())):
            values = saliency
        return {
            name: np.where(
                np.asarray(s) > self.thresholds[name],
                np.maximum(np.asarray(values[name]), LEAST) / self.multipliers.get(name, 1.0),
                0.0,
            )
            for name, s in strengths.items()
        }

    def slopes(self, variables: Any, gradients: Any) -> dict[str, Float[Array, " width"]]:
        """The derivative of the loss by a factor on every channel, by group; none of gates.

        Args:
            variables: the traced variables, or only their `params`.
            gradients: of the loss, likewise.
        """
        widths = {g.group: g.width for g in self.groups if g.pulled}
        paths, leaves, _ = flat_paths(variables)

        def multiplied(factors: Mapping[str, Any]) -> list[Any]:
            every = {g.group: factors.get(g.group, jnp.ones(g.width)) for g in self.groups}
            return [
                scaled(self.graph, path, leaf, self._slices, every)
                for path, leaf in zip(map(self._full, paths), leaves, strict=True)
            ]

        ones = {name: jnp.ones(width) for name, width in widths.items()}
        _, pull_back = jax.vjp(multiplied, ones)
        (slopes,) = pull_back(jax.tree.leaves(gradients))
        return dict(slopes)

    @property
    def gated(self) -> tuple[str, ...]:
        """The groups whose channels have gates; see `gates.gated`."""
        return tuple(g.group for g in self.groups if g.gates)

    @cached_property
    def thresholds(self) -> dict[str, float]:
        """The strength up to which a channel is dead, by group; a gate is where it is shut."""
        return {
            g.group: max(self.threshold, g.dead_up_to * self.scale.get(g.group, 1.0))
            for g in self.groups
        }

    def silent_blocks(self, variables: Any) -> frozenset[str]:
        """The names of the blocks that give nothing, and can go."""
        leaves = self._by_path(variables)
        silent = [one.block.name for one in self.blocks if not float(one.strength(leaves))]
        return spared(self.blocks, silent)

    def alive(self, variables: Any) -> dict[str, Bool[Array, " width"]]:
        """Which channels are alive, by group; never none of a group (its strongest stays)."""
        return {
            name: ~(s <= self.thresholds[name]) | ((s == s.max()) & (jnp.cumsum(s == s.max()) == 1))
            for name, s in self.strengths(variables).items()
        }

    def alive_widths(self, strengths: Mapping[str, Any]) -> Float[Array, " groups"]:
        """The alive width of every group of the cost, as one vector; at least 1 each."""
        return jnp.stack(
            [
                jnp.maximum(jnp.sum(strengths[name] > self.thresholds[name]), 1).astype(jnp.float32)
                if name in strengths
                else jnp.float32(seed)
                for name, seed in self.cost.groups.items()
            ]
        )

    def alive_cost(self, variables: Any) -> Float[Array, ""]:
        """The cost at the alive widths, in the unit of the cost."""
        return self.cost.of_vector(self.alive_widths(self.strengths(variables)))

    def marginal_costs(self, strengths: Mapping[str, Any]) -> dict[str, Float[Array, ""]]:
        """d cost / d width at the alive widths, by group, over the seed's cost."""
        marginal = jax.grad(self._smooth)(self.alive_widths(strengths)) / self.seed_cost
        return {name: marginal[i] for i, name in enumerate(self.cost.groups) if name in strengths}

    def _smooth(self, widths: Float[Array, " groups"]) -> Float[Array, ""]:
        return self.cost.of_vector(widths, SMOOTH)

    def shrink_step(
        self,
        variables: Any,
        step: Any,
        protected: Mapping[str, Bool[Array | np.ndarray, " width"]] | None = None,
        held: Mapping[str, Bool[Array | np.ndarray, " width"]] | None = None,
        before: Any = None,
    ) -> Any:
        """One proximal step: every strength falls by step x marginal cost, down to exactly zero.

        All variables of a channel are scaled by one factor, max(0, 1 - step m / s). This is the
        proximal operator of the penalty where the strength is the norm of what is scaled, and keeps
        its radial direction where it is not (a maximum over members; a shift beside its scale).
        Of a gate the probability falls, and its logit is set to match; at probability 0 it is shut
        for good.

        Args:
            variables: the traced variables, or only their `params`.
            step: how much a channel of marginal cost 1 and multiplier 1 loses; scalar.
            protected: channels that feel only `PRESSURE` of it, and are not pulled below `FLOOR`
                of their group's strongest, nor of a fresh one (else a group whose strongest is
                pulled would vanish as a whole); gates that stay open in evaluation.
            held: channels that are set to zero, whatever they are.
            before: the variables before the optimizer's update; a block that is silent there stays
                so where channels are held.

        Returns:
            The variables, pulled.
        """
        strengths = self.strengths(variables)
        marginal = self.marginal_costs(strengths)
        factors: dict[str, Any] = {}
        logits: dict[str, Any] = {}
        for g in self.groups:
            name, s = g.group, strengths[g.group]
            pull = step * self.multipliers.get(name, 1.0) * jnp.maximum(marginal[name], 0.0)
            if protected is not None:
                pull = jnp.where(protected[name], PRESSURE * pull, pull)
            left = jnp.maximum(s - pull, 0.0)
            if protected is not None:
                least = (
                    AJAR * self._unit(g)
                    if g.gates
                    else jnp.minimum(s, FLOOR * jnp.maximum(s.max(), self._unit(g)))
                )
                left = jnp.where(protected[name], jnp.maximum(left, least), left)
            if held is not None:
                left = jnp.where(held[name], 0.0, left)
            if g.gates:
                logits[g.gates] = (left == s, gates.logits_of(left / self._unit(g)))
            else:
                factors[name] = jnp.where(s > 0.0, left / jnp.where(s > 0.0, s, 1.0), 0.0)
        switched = self._switched(variables, step, strengths, protected, held, before)
        paths, leaves, treedef = flat_paths(variables)
        moved = []
        for path, leaf in zip(map(self._full, paths), leaves, strict=True):
            if path in logits:
                is_same, new = logits[path]
                leaf = jnp.where(is_same, leaf, new.astype(leaf.dtype))
            if path in switched:
                leaf = leaf * switched[path].astype(leaf.dtype)
            moved.append(scaled(self.graph, path, leaf, self._slices, factors))
        return jax.tree.unflatten(treedef, moved)

    def _switched(
        self,
        variables: Any,
        step: Any,
        strengths: Mapping[str, Any],
        protected: Mapping[str, Any] | None,
        held: Mapping[str, Any] | None,
        before: Any,
    ) -> dict[str, Float[Array, ""]]:
        """By path, the factor of all that silences a block."""
        if not self.blocks:
            return {}
        leaves = self._by_path(variables)
        past = None if before is None else self._by_path(before)
        own = self._own_strengths(leaves)
        alive = self.alive_widths(strengths)
        costs = block_costs(self.blocks, self._smooth, list(self.cost.groups), alive)
        factors: dict[str, Any] = {}
        for one in self.blocks:
            unit = jnp.mean(jnp.concatenate([own[name] for name in one.groups]))
            pull = step * costs[one.block.name] / self.seed_cost / jnp.maximum(unit, 1e-12)
            is_held = jnp.asarray(False)
            if held is not None and past is not None:
                is_held = held[one.groups[0]].any() & (one.strength(past) == 0.0)
            factor = one.pulled(one.strength(leaves), pull, protected, is_held)
            factors |= dict.fromkeys(one.block.switch, factor)
        return factors

    def resting(self, variables: Any) -> Any:
        """For every leaf, the number where `shrink_step` leaves dead channels; NaN if it is none's.

        Zero, and for logits that of a gate that is shut for good.
        """
        paths, _, treedef = flat_paths(variables)
        logits = {g.gates for g in self.groups}
        return jax.tree.unflatten(
            treedef,
            [
                gates.CLOSED if path in logits else 0.0 if path in self._slices else math.nan
                for path in map(self._full, paths)
            ],
        )

    def _unit(self, g: Strength) -> float:
        """The strength of a channel of a freshly drawn layer; of a gate that is surely open."""
        fresh = 1.0 if self.is_fresh else max(source.fresh for source in g.measured)
        return fresh * self.scale.get(g.group, 1.0)

    @cached_property
    def _slices(self) -> Slices:
        """What is scaled, and by which groups."""
        return slices_of(self.graph, {g.group: g.pulled for g in self.groups})

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of everything that is measured, by path."""
        return {
            source.path: (g.width,) if g.gates else self.graph.variables[source.path].shape
            for g in self.groups
            for source in g.measured
        }

    @cached_property
    def _switches(self) -> dict[str, tuple[int, ...]]:
        """The shape of what silences blocks, by path."""
        paths = [path for one in self.blocks for path in one.block.switch]
        return {path: self.graph.variables[path].shape for path in paths}

    def _full(self, path: str) -> str:
        """The path as traced, also where only `params` was passed."""
        known = path in self.graph.variables or path in self._shapes
        return path if known else f"params/{path}"

    def _by_path(self, variables: Any) -> dict[str, Any]:
        paths, leaves, _ = flat_paths(variables)
        found = {self._full(path): leaf for path, leaf in zip(paths, leaves, strict=True)}
        for path, expected in {**self._shapes, **self._switches}.items():
            leaf = found.get(path)
            if leaf is None:
                hint = (
                    "; gates.init(graph) makes the logits"
                    if any(path == g.gates for g in self.groups)
                    else near(path, found)
                )
                raise InputError(f"the variables do not fit the graph: {path!r} is missing{hint}")
            if tuple(np.shape(leaf)) != expected:
                raise InputError(
                    f"the variables do not fit the graph: {path!r} was traced with "
                    f"shape {list(expected)}, found {list(np.shape(leaf))}"
                )
        return found
