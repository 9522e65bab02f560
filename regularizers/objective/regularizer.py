"""The objective: penalty x marginal cost, as a term of the loss or as a proximal step.

    loss term      strength * sum_g multiplier_g * marginal_cost_g * sum_c strength_gc
    proximal step  strength_gc <- max(0, strength_gc - step * multiplier_g * marginal_cost_g)

Marginal costs are the gradient of the one cost function, in its smooth form, at the alive widths,
divided by the seed's cost, so that `strength` (the field's lambda) is dimensionless and carries
over between models.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from regularizers.channels.calls import flat_paths
from regularizers.channels.graph import GRAPH, ChannelGraph
from regularizers.checks import FLAG, NAME, by_name, checked, number
from regularizers.costs.cost import COST, Cost
from regularizers.costs.form import SMOOTH
from regularizers.errors import InputError
from regularizers.host import on_host
from regularizers.objective.blocks import block_pulls, spared
from regularizers.objective.decay import Decay, Weights, decayed, decaying, find_decay, weigh
from regularizers.objective.measures import Measured
from regularizers.objective.norms import widened
from regularizers.objective.plan import make_plan
from regularizers.objective.pulling import Factors, Owed, applied, find_factors
from regularizers.objective.slices import Slices, slices_of, slopes_at_one
from regularizers.objective.sums import Sums

LEAST = 1e-30  # what a channel that is alive is worth at least


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

    @checked(
        graph=GRAPH,
        cost=COST,
        penalty=NAME | by_name(NAME, "names of penalties by pattern"),
        combine=NAME,
        l1_share=number(least=0.0, most=1.0),
        threshold=number(least=0.0),
        inexact=FLAG,
        strengths=by_name(number(least=0.0), "finite numbers of at least 0 by pattern"),
        blocks=FLAG,
    )
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
        plan = make_plan(
            graph,
            cost,
            penalty,
            combine=combine,
            l1_share=l1_share,
            inexact=inexact,
            relative_to=relative_to,
            strengths=strengths,
            blocks=blocks,
        )
        self.graph, self.cost, self.threshold = graph, cost, threshold
        self.seed_cost, self.multipliers = plan.seed_cost, plan.multipliers
        self.measures, self.groups = plan.measures, plan.measures.groups

    def __repr__(self) -> str:
        """What is paid for, and how much is pulled on."""
        return f"NetworkRegularizer(cost={self.cost.name}, groups={len(self.groups)})"

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
        return self.measures.strengths(variables)

    def measured(self, variables: Any) -> dict[str, np.ndarray]:
        """The strengths, on the host; for whoever looks between two steps: compiled once."""
        return on_host(self._compiled(self.measures.read(variables)))[0]

    @cached_property
    def _compiled(self) -> Callable[[Any], tuple[dict[str, Any], dict[str, Any]]]:
        return jax.jit(self.measures.of_both)

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
        paths, leaves, _ = flat_paths(variables)
        products = {
            path: widened(leaf) * widened(slope)
            for path, leaf, slope in zip(
                map(self.measures.full, paths), leaves, jax.tree.leaves(gradients), strict=True
            )
            if path in self._slices
        }
        names = [g.group for g in self.groups if g.pull.scaled]
        own = slopes_at_one(self.graph, self._slices, products, names, self.measures.total)
        return self.measures.sums.whole(own)

    @cached_property
    def thresholds(self) -> dict[str, float]:
        """The strength up to which a channel is dead, by group; a gate is where it is shut."""
        return self.measures.thresholds(self.threshold)

    def mask(self, averages: Any, variables: Any) -> Any:
        """Zero in `averages` what is dead in `variables`: channels, and blocks that are silent.

        A moving average of weights (EMA) lags behind them: where they are exactly zero it is not
        yet. Masked, it can be shrunk like them, and its function changes by what was masked only.

        Args:
            averages: the variables, or only their `params`.
            variables: what they are averages of, likewise.
        """
        alive = {name: np.asarray(flags) for name, flags in self.alive(variables).items()}
        return self.graph.mask(averages, alive, self.silent_blocks(variables))

    def weigh(
        self, variables: Any, params: Any, gradients: Any, still: Collection[str] = ()
    ) -> Weights:
        """What relative decay depends on; see `decay`.

        Args:
            variables: the traced variables, or only their `params`.
            params: where the gradients were taken, likewise.
            gradients: of the loss, likewise.
            still: the paths, as traced, of what stays as it is.
        """
        by_path = self.measures.by_path
        at, own = by_path(params), jax.tree.leaves(gradients)
        slopes = {path: (at[path], slope) for path, slope in zip(at, own, strict=True)}
        return weigh(self.measures, self.decaying, by_path(variables), slopes, still)

    def find_decay(self, rate: Any, weights: Weights) -> Decay:
        """What one step of relative decay multiplies variables by.

        Args:
            rate: the share that the weakest channel of a group of multiplier 1 loses.
            weights: of `weigh`.
        """
        factor = self.multipliers
        rates = {g.group: jnp.minimum(rate * factor.get(g.group, 1.0), 1.0) for g in self.groups}
        return find_decay(self.measures, rates, weights)

    def decayed(self, variables: Any, decay: Decay, still: Collection[str] = ()) -> Any:
        """The variables after one step of relative decay, in float32 where in half precision."""
        after = decayed(self.graph, self.decaying, self.measures.by_path(variables), decay, still)
        return jax.tree.unflatten(jax.tree.structure(variables), list(after.values()))

    def without(self, paths: Collection[str]) -> NetworkRegularizer:
        """The same, blind to the groups and blocks that need one of these variables.

        Raises:
            ValueError: if no group would be left.
        """
        gone = set(paths)
        groups = tuple(
            g
            for g in self.groups
            if gone.isdisjoint(g.pull.resting) and gone.isdisjoint(s.path for s in g.measured)
        )
        if not groups:
            raise InputError(
                "every channel group needs a parameter that the optimizer does not see or does not "
                f"change, e.g. {min(gone)!r}: nothing can be pulled to zero. Train what produces a "
                "channel, or trace with prunable= what is trained."
            )
        left = {g.group for g in groups}
        blocks = tuple(
            b
            for b in self.measures.blocks
            if gone.isdisjoint(b.block.switch) and left.issuperset(b.groups)
        )
        made = copy.copy(self)
        for known in ("thresholds", "_slices", "decaying", "_compiled"):  # of all groups
            vars(made).pop(known, None)
        made.measures, made.groups = replace(self.measures, groups=groups, blocks=blocks), groups
        return made

    def summed(self, sums: Sums) -> NetworkRegularizer:
        """The same, of variables that are so summed."""
        made = copy.copy(self)
        vars(made).pop("_compiled", None)
        made.measures = replace(self.measures, sums=sums)
        return made

    def silent_blocks(self, variables: Any) -> frozenset[str]:
        """The names of the blocks that give nothing, and can go."""
        if not (blocks := self.measures.blocks):
            return frozenset()
        _, found = on_host(self._compiled(self.measures.read(variables)))
        return spared(blocks, [name for name, strength in found.items() if not strength])

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
        What a penalty writes instead (`Pull.written`) is set to match: of a gate the probability
        falls, and its logit with it; at probability 0 it is shut for good.

        Args:
            variables: the traced variables, or only their `params`.
            step: how much a channel of marginal cost 1 and multiplier 1 loses; scalar.
            protected: channels that are not pulled on; gates that stay open in evaluation.
            held: channels that are set to zero, whatever they are.
            before: the variables before the optimizer's update; a block that is silent there stays
                so where channels are held.

        Returns:
            The variables, pulled.
        """
        factors, _ = self.factors(variables, step, protected, held, before)
        wide = self.applied(variables, factors)
        return jax.tree.map(lambda own, leaf: own.astype(jnp.result_type(leaf)), wide, variables)

    def factors(
        self,
        variables: Any,
        step: Any,
        protected: Mapping[str, Bool[Array | np.ndarray, " width"]] | None = None,
        held: Mapping[str, Bool[Array | np.ndarray, " width"]] | None = None,
        before: Any = None,
        *,
        owed: Owed | None = None,
        measured: Measured | None = None,
    ) -> tuple[Factors, dict[str, Any]]:
        """What `shrink_step` multiplies variables by.

        Args:
            variables: as of `shrink_step`, as are the next four.
            step: likewise.
            protected: likewise.
            held: likewise.
            before: likewise.
            owed: how much weaker channels and blocks are than their numbers say.
            measured: of `measures.measured`, if that is known.

        Returns:
            The factors, and by group the strengths that are left, blocks not counted.
        """
        found = measured or self.measures.measured(variables, before)
        strengths = self.measures.weakened(found)
        marginal, factor = self.marginal_costs(strengths), self.multipliers
        pulls = {n: step * factor.get(n, 1.0) * jnp.maximum(marginal[n], 0.0) for n in found.own}
        return find_factors(
            self.measures,
            variables,
            found,
            pulls,
            block_pulls(
                self.measures.blocks,
                self._smooth,
                list(self.cost.groups),
                self.alive_widths(strengths),
                found.own,
                step / self.seed_cost,
            ),
            protected=protected,
            held=held,
            owed=owed,
        )

    def applied(self, variables: Any, factors: Factors) -> Any:
        """The variables after `factors`, in float32 where in half precision."""
        return applied(self.measures, self._slices, variables, factors)

    def resting(self, variables: Any) -> Any:
        """For every leaf, the number where `shrink_step` leaves dead channels; NaN if it is none's.

        Zero, and for logits that of a gate that is shut for good.
        """
        paths, _, treedef = flat_paths(variables)
        resting = {path: at for g in self.groups for path, at in g.pull.resting.items()}
        return jax.tree.unflatten(
            treedef, [resting.get(path, math.nan) for path in map(self.measures.full, paths)]
        )

    @cached_property
    def _slices(self) -> Slices:
        """What is scaled, and by which groups."""
        return slices_of(self.graph, {g.group: g.pull.scaled for g in self.groups})

    @cached_property
    def decaying(self) -> Slices:
        """What decays, and with which groups."""
        return decaying(self.graph, [g.group for g in self.groups])
