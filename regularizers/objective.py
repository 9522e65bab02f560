"""The objective: penalty x marginal cost, as a term of the loss or as a proximal step.

    loss term      strength * sum_g marginal_cost_g * sum_c strength_gc
    proximal step  strength_gc <- max(0, strength_gc - step * marginal_cost_g)

Marginal costs are the gradient of the one cost function, in its smooth form, at the alive widths,
divided by the seed's cost, so that `strength` (the field's lambda) is dimensionless and carries
over between models.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from regularizers.channels import axes as ax
from regularizers.channels.calls import flat_paths
from regularizers.channels.graph import ChannelGraph, near
from regularizers.costs.cost import Cost
from regularizers.costs.form import SMOOTH
from regularizers.penalties import COMBINATIONS, PENALTIES, Strength

FLOOR = 0.05  # a protected channel keeps this share of its group's strongest


class NetworkRegularizer:
    """Measures the strength of every channel and pulls it to zero by what it costs.

    Args:
        graph: the channel graph of the seed network.
        cost: what is paid for, e.g. `reg.flops(graph)`.
        penalty: `"group_lasso"` or `"gamma"`.
        combine: how the members of a group agree: `"max"`, `"l2"` or `"any"`.
        l1_share: share of mean |w| in group lasso, 0 to 1.
        threshold: a channel is alive while its strength is above it. Use 0 with `proximal`.
        inexact: also pull on groups whose dead channels would not be exactly zero.
        relative_to: measure every strength in units of its group's mean in these variables, e.g.
            the seed's. Weights of a wide layer are smaller than those of a narrow one, and not
            worth less for it.

    Raises:
        ValueError: if a name is unknown, or there is no group to pull on.

    Example:
        >>> regularizer = NetworkRegularizer(graph, flops(graph), "gamma")  # doctest: +SKIP
        >>> loss = task_loss + 0.1 * regularizer(variables)                  # doctest: +SKIP
    """

    def __init__(
        self,
        graph: ChannelGraph,
        cost: Cost,
        penalty: str = "group_lasso",
        *,
        combine: str = "max",
        l1_share: float = 0.0,
        threshold: float = 1e-3,
        inexact: bool = False,
        relative_to: Any = None,
    ) -> None:
        for name, table in ((penalty, PENALTIES), (combine, COMBINATIONS)):
            if name not in table:
                raise ValueError(f"unknown penalty or combination {name!r}{near(name, table)}")
        if not 0.0 <= l1_share <= 1.0:
            raise ValueError(f"l1_share must be between 0 and 1, found {l1_share}")
        self.graph = graph
        self.cost = cost
        self.combine = COMBINATIONS[combine]
        self.l1_share = l1_share
        self.threshold = threshold
        self.seed_cost = float(cost())
        if not self.seed_cost > 0.0:
            raise ValueError(f"the seed's cost must be positive, found {self.seed_cost}")
        self.groups: tuple[Strength, ...] = tuple(
            PENALTIES[penalty](graph, group)
            for group in graph.groups.values()
            if group.exact or inexact
        )
        if not self.groups:
            raise ValueError(
                "the network has no channel group that can be shrunk exactly; "
                "graph.explain(path) says why an axis is fixed, inexact=True includes the others."
            )
        self.scale: dict[str, float] = {}
        if relative_to is not None:
            means = {name: float(s.mean()) for name, s in self.strengths(relative_to).items()}
            self.scale = {name: 1.0 / mean for name, mean in means.items() if mean > 0.0}

    def __call__(self, variables: Any) -> Float[Array, ""]:
        """The loss term, dimensionless: C(A_in R_out + A_out R_in) / C(seed).

        Args:
            variables: the traced variables, or only their `params`.
        """
        strengths = self.strengths(variables)
        alive = jax.lax.stop_gradient(self.alive_widths(strengths))
        pulled = jnp.stack(
            [strengths[n].sum() if n in strengths else jnp.float32(0) for n in self.cost.groups]
        )
        _, term = jax.jvp(self._smooth, (alive,), (pulled,))
        return term / self.seed_cost

    def strengths(self, variables: Any) -> dict[str, Float[Array, " width"]]:
        """The strength of every channel, by group."""
        leaves = self._by_path(variables)
        return {
            g.group: self.scale.get(g.group, 1.0)
            * self.combine(
                [
                    source.strength(leaves[source.path], g.width, self.l1_share)
                    for source in g.measured
                ]
            )
            for g in self.groups
        }

    def alive(self, variables: Any) -> dict[str, Bool[Array, " width"]]:
        """Which channels are alive, by group; never none of a group (its strongest stays)."""
        return {
            name: ~(s <= self.threshold) | ((s == s.max()) & (jnp.cumsum(s == s.max()) == 1))
            for name, s in self.strengths(variables).items()
        }

    def alive_widths(self, strengths: Mapping[str, Any]) -> Float[Array, " groups"]:
        """The alive width of every group of the cost, as one vector; at least 1 each."""
        return jnp.stack(
            [
                jnp.maximum(jnp.sum(strengths[name] > self.threshold), 1).astype(jnp.float32)
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
        protected: Mapping[str, Bool[Array, " width"]] | None = None,
        held: Mapping[str, Bool[Array, " width"]] | None = None,
    ) -> Any:
        """One proximal step: every strength falls by step x marginal cost, down to exactly zero.

        All variables of a channel are scaled by one factor, max(0, 1 - step m / s). This is the
        proximal operator of the penalty where the strength is the norm of what is scaled, and keeps
        its radial direction where it is not (a maximum over members; a shift beside its scale).

        Args:
            variables: the traced variables, or only their `params`.
            step: how much a channel of marginal cost 1 loses; scalar.
            protected: channels that are not pulled below `FLOOR` of their group's strongest.
            held: channels that are set to zero, whatever they are.

        Returns:
            The variables, pulled.
        """
        strengths = self.strengths(variables)
        marginal = self.marginal_costs(strengths)
        factors: dict[str, Any] = {}
        for name, s in strengths.items():
            left = jnp.maximum(s - step * jnp.maximum(marginal[name], 0.0), 0.0)
            if protected is not None:
                left = jnp.where(
                    protected[name], jnp.maximum(left, jnp.minimum(s, FLOOR * s.max())), left
                )
            if held is not None:
                left = jnp.where(held[name], 0.0, left)
            factors[name] = jnp.where(s > 0.0, left / jnp.where(s > 0.0, s, 1.0), 0.0)
        return self._scale(variables, factors)

    def is_pulled(self, variables: Any) -> Any:
        """For every leaf of `variables`, whether `shrink_step` may scale it."""
        paths, _, treedef = flat_paths(variables)
        return jax.tree.unflatten(treedef, [self._full(path) in self._pulled for path in paths])

    def _scale(self, variables: Any, factors: Mapping[str, Any]) -> Any:
        """Multiplies what each channel pulls along by its factor."""
        paths, leaves, treedef = flat_paths(variables)
        scaled = []
        for path, leaf in zip(paths, leaves, strict=True):
            for k, names in self._pulled.get(self._full(path), ()):
                axis = self.graph.variables[self._full(path)].axes[k]
                own = {
                    name: factors[name] if name in names else jnp.ones(self.graph.widths[name])
                    for name in ax.groups_of(axis)
                }
                factor = ax.spread(axis, own, jnp.ones, jnp.multiply, jnp.concatenate)
                shape = [-1 if i == k else 1 for i in range(leaf.ndim)]
                leaf = (leaf * factor.reshape(shape)).astype(leaf.dtype)
            scaled.append(leaf)
        return jax.tree.unflatten(treedef, scaled)

    @cached_property
    def _pulled(self) -> dict[str, list[tuple[int, frozenset[str]]]]:
        """The producing axes of each variable that are scaled, and by which groups."""
        table: dict[str, list[tuple[int, frozenset[str]]]] = {}
        for path in dict.fromkeys(path for g in self.groups for path in g.pulled):
            pulling = frozenset(g.group for g in self.groups if path in g.pulled)
            variable = self.graph.variables[path]
            for k in sorted(variable.produces):
                names = pulling.intersection(ax.groups_of(variable.axes[k]))
                if names:
                    table.setdefault(path, []).append((k, names))
        return table

    def _full(self, path: str) -> str:
        """The path as traced, also where only `params` was passed."""
        return path if path in self.graph.variables else f"params/{path}"

    def _by_path(self, variables: Any) -> dict[str, Any]:
        paths, leaves, _ = flat_paths(variables)
        found = {self._full(path): leaf for path, leaf in zip(paths, leaves, strict=True)}
        for g in self.groups:
            for source in g.measured:
                expected = self.graph.variables[source.path].shape
                leaf = found.get(source.path)
                if leaf is None:
                    raise ValueError(
                        f"the variables do not fit the graph: {source.path!r} is missing"
                        f"{near(source.path, found)}"
                    )
                if tuple(np.shape(leaf)) != expected:
                    raise ValueError(
                        f"the variables do not fit the graph: {source.path!r} was traced with "
                        f"shape {list(expected)}, found {list(np.shape(leaf))}"
                    )
        return found
