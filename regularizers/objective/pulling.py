"""The proximal step on variables: every channel and every block loses what it is pulled by.

Parameters in half precision are too coarse for a small pull: one part in 256 of a number is the
least that bfloat16 can take from it. What rounding has not taken is *owed*, in float32 in the
optimizer's state, and added to the next pull (error feedback, Seide et al. 2014).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from regularizers.channels.calls import flat_paths
from regularizers.objective.measures import Measured, Measures
from regularizers.objective.norms import is_half, share, widened
from regularizers.objective.slices import Slices, scaled
from regularizers.objective.sums import Sums


class Owed(NamedTuple):
    """How much weaker channels and blocks are in truth than their rounded numbers say.

    Attributes:
        channels: by group.
        blocks: by name.
    """

    channels: dict[str, Float[Array, " width"]]
    blocks: dict[str, Float[Array, ""]]


class Factors(NamedTuple):
    """What one step does to the variables; small, whatever their size.

    Attributes:
        channels: what slices are multiplied by, by group.
        late: likewise, of leaves in half precision, which still are what they were.
        switches: what all that silences a block is multiplied by, by path.
        written: what takes the place of variables, by path.
    """

    channels: dict[str, Float[Array, " width"]]
    late: dict[str, Float[Array, " width"]]
    switches: dict[str, Float[Array, ""]]
    written: dict[str, Any]

    def idle(self, measures: Measures, variables: Any) -> Factors:
        """The same of a step that leaves the variables as they are.

        Args:
            measures: of the network.
            variables: the traced variables, or only their `params`.
        """
        leaves = measures.by_path(variables)
        ones: Factors = jax.tree.map(jnp.ones_like, self)
        return ones._replace(written={path: widened(leaves[path]) for path in self.written})


def find_factors(
    measures: Measures,
    variables: Any,
    measured: Measured,
    pulls: Mapping[str, Any],
    block_pulls: Mapping[str, Any],
    *,
    protected: Mapping[str, Any] | None,
    held: Mapping[str, Any] | None,
    owed: Owed | None,
) -> tuple[Factors, dict[str, Any]]:
    """What one step does, and all strengths after it.

    Args:
        measures: of the network.
        variables: the traced variables, or only their `params`.
        measured: of them.
        pulls: what a channel loses, by group.
        block_pulls: what a block loses, by name.
        protected: see `NetworkRegularizer.shrink_step`.
        held: likewise.
        owed: what rounding has not taken so far.
    """
    by_path = measures.by_path(variables)
    wide = {path: widened(leaf) for path, leaf in by_path.items()}
    strengths, debt = measures.weakened(measured), owed.channels if owed else {}
    found = Factors({}, {}, {}, {})
    after: dict[str, Any] = {}
    for g in measures.groups:
        name, s, unit = g.group, strengths[g.group], measures.unit(g)
        true = jnp.maximum(s - debt[name], 0.0) if name in debt else s
        after[name] = left = g.pull.left(
            true,
            pulls[name],
            unit,
            None if protected is None else protected[name],
            None if held is None else held[name],
        )
        found.channels[name] = share(left, true)
        found.late[name] = share(left, s) if name in debt else found.channels[name]
        found.written.update(g.pull.rewritten(wide, s, left, unit))
    switches = _switched(measures, by_path, measured, block_pulls, protected, held, owed)
    return measures.sums.whole((found._replace(switches=switches), after))


def applied(measures: Measures, slices: Slices, variables: Any, factors: Factors) -> Any:
    """The variables after one step, in float32 where in half precision.

    Args:
        measures: of the network.
        slices: what is scaled, and by which groups.
        variables: the traced variables, or only their `params`.
        factors: of `find_factors`.
    """
    paths, leaves, treedef = flat_paths(variables)
    moved = []
    for path, leaf in zip(map(measures.full, paths), leaves, strict=True):
        own = factors.late if is_half(leaf) else factors.channels
        leaf = factors.written.get(path, widened(leaf))
        if path in factors.switches:
            leaf = leaf * factors.switches[path].astype(leaf.dtype)
        if path in slices:
            leaf = scaled(measures.graph, path, leaf, slices, own)
        moved.append(leaf)
    return jax.tree.unflatten(treedef, moved)


def _switched(
    measures: Measures,
    leaves: Mapping[str, Any],
    measured: Measured,
    pulls: Mapping[str, Any],
    protected: Mapping[str, Any] | None,
    held: Mapping[str, Any] | None,
    owed: Owed | None,
) -> dict[str, Float[Array, ""]]:
    """By path, the factor of all that silences a block."""
    debt = owed.blocks if owed else {}
    factors: dict[str, Any] = {}
    for one in measures.blocks:
        name, now = one.block.name, measured.blocks[one.block.name]
        is_held = jnp.asarray(False)
        if held is not None and measured.past is not None:
            is_held = held[one.groups[0]].any() & (measured.past[name] == 0.0)
        true = jnp.maximum(now - debt[name], 0.0) if name in debt else now
        factor = one.pulled(true, pulls[name], protected, is_held)
        late = factor * share(true, now) if name in debt else factor
        factors |= {path: late if is_half(leaves[path]) else factor for path in one.block.switch}
    return factors


def coarse(measures: Measures, variables: Any) -> tuple[list[str], list[str]]:
    """The groups and the blocks that are pulled in half precision, by name."""
    half = {path for path, leaf in measures.by_path(variables).items() if is_half(leaf)}
    return (
        [g.group for g in measures.groups if not half.isdisjoint(g.pull.resting)],
        [b.block.name for b in measures.blocks if not half.isdisjoint(b.block.switch)],
    )


def nothing_owed(measures: Measures, variables: Any) -> Owed:
    """Zeros for all groups and blocks that are pulled in half precision."""
    groups, blocks = coarse(measures, variables)
    widths = {g.group: g.width for g in measures.groups}
    return Owed(
        {name: jnp.zeros(widths[name], jnp.float32) for name in groups},
        {name: jnp.zeros((), jnp.float32) for name in blocks},
    )


def now_owed(measures: Measures, variables: Any, wide: Any) -> Owed:
    """What rounding has not taken; 0 for what is dead.

    Args:
        measures: of the network.
        variables: as they are now.
        wide: what they were rounded from, see `applied`.
    """
    groups, blocks = coarse(measures, variables)
    if not groups and not blocks:
        return Owed({}, {})

    def both(sums: Sums) -> list[Measured]:
        own = replace(measures, sums=sums)
        return [own.measured(tree) for tree in (variables, wide)]

    found = measures.sums.whole(measures.sums.together(both))
    now, true = ((measures.weakened(one), one.blocks) for one in found)

    def difference(i: int, name: str) -> Any:
        return jnp.where(now[i][name] > 0.0, now[i][name] - true[i][name], 0.0)

    return Owed(
        {name: difference(0, name) for name in groups},
        {name: difference(1, name) for name in blocks},
    )
