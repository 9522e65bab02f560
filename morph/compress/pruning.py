"""Magnitude pruning: an optax optimizer that makes weights exactly zero, on a schedule.

    tx = pruned(optax.adam(1e-3), gradual(0.9, start=0, end=2000, every=100), "erk")
    ...  # train with it as with any other; then
    params = finished(params, opt_state)  # kernels are `Pruned` values

Source: Han et al., Learning both Weights and Connections for Efficient Neural Networks, 2015.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Int

from morph.compress.sparsities import DISTRIBUTIONS, Distribution, Kept, kernels_of, name_of
from morph.kernels.compressed import Pruned
from regularizers.checks import NAMES, OPTIMIZER, TREE, a, all_of, checked, number, shown, whole
from regularizers.errors import InputError, InputTypeError
from regularizers.messages import near

SPARSITY = number(least=0.0, below=1.0)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When weights are pruned, and how many are zero from then on.

    Attributes:
        at: pruning steps, rising; that of number k is the (k + 1)-th update of the optimizer.
        sparsities: after each of these steps, in [0, 1), not falling.

    Raises:
        ValueError: if it is none.
    """

    at: tuple[int, ...]
    sparsities: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuses what cannot be."""
        if not self.at or len(self.at) != len(self.sparsities):
            raise InputError(
                "a pruning schedule needs a sparsity for every pruning step, and at least one; got "
                f"{len(self.at)} steps and {len(self.sparsities)} sparsities"
            )
        for sparsity in self.sparsities:
            if not 0.0 <= sparsity < 1.0:
                raise InputError(f"sparsity is {sparsity}; it must be in [0, 1), the part pruned")
        if self.at[0] < 0 or any(np.diff(self.at) <= 0):
            raise InputError(f"pruning steps must rise from 0 or more; got {self.at}")
        if any(np.diff(self.sparsities) < 0):
            raise InputError(
                f"sparsities must not fall, as pruned weights stay pruned; got {self.sparsities}"
            )


@checked(sparsity=SPARSITY, at=whole(least=0))
def one_shot(sparsity: float, *, at: int = 0) -> Schedule:
    """All at one step."""
    return Schedule(at=(at,), sparsities=(sparsity,))


@checked(
    sparsities=all_of(SPARSITY, "a sequence of numbers of at least 0 and below 1"),
    every=whole(least=1),
    start=whole(least=0),
)
def iterative(sparsities: Sequence[float], *, every: int, start: int = 0) -> Schedule:
    """Prune, train for `every` steps, prune more, and so on (Han et al. 2015)."""
    at = tuple(start + i * every for i in range(len(sparsities)))
    return Schedule(at=at, sparsities=tuple(sparsities))


@checked(
    sparsity=SPARSITY,
    start=whole(least=0),
    end=whole(least=0),
    every=whole(least=1),
    initial=SPARSITY,
)
def gradual(sparsity: float, *, start: int, end: int, every: int, initial: float = 0.0) -> Schedule:
    """From an initial sparsity fast at first, then ever slower: s + (s_i - s)(1 - t)³.

    Source: Zhu and Gupta, To prune, or not to prune, 2017, equation 1.

    Args:
        sparsity: at the end.
        start: the first pruning step.
        end: the last one.
        every: steps between two.
        initial: sparsity at the start.

    Raises:
        ValueError: unless start < end and every > 0.

    Example:
        >>> gradual(0.5, start=10, end=30, every=10)
        Schedule(at=(10, 20, 30), sparsities=(0.0, 0.4375, 0.5))
    """
    if start >= end or every < 1:
        raise InputError(
            f"gradual pruning needs start < end and every > 0; got {start}, {end} and {every}"
        )
    at = (*range(start, end, every), end)
    rest = ((end - step) / (end - start) for step in at)
    sparsities = tuple(sparsity + (initial - sparsity) * share**3 for share in rest)
    return Schedule(at=at, sparsities=sparsities)


class PruningState(NamedTuple):
    """The state of the wrapped optimizer, and the masks.

    Attributes:
        inner: the wrapped optimizer's state.
        steps: updates so far.
        kept: of every kernel that is pruned, by path, which weights are not.
    """

    inner: Any
    steps: Int[Array, ""]
    kept: dict[str, Bool[Array, "..."]]


@checked(
    optimizer=OPTIMIZER,
    schedule=a(Schedule, "a schedule, e.g. morph.compress.one_shot(0.5)"),
    patterns=NAMES,
)
def pruned(
    optimizer: optax.GradientTransformation,
    schedule: Schedule,
    distribution: str | Distribution = "uniform",
    *,
    patterns: Collection[str] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer so that every update leaves pruned weights exactly zero.

    It comes last: what another transformation would add to its updates could wake weights.

    Args:
        optimizer: any optax transformation. It sees no gradients of pruned weights.
        schedule: when, and how many.
        distribution: a name in `DISTRIBUTIONS`, or one of `given`, `NOfM` and the like.
        patterns: which kernels, see `kernels_of`; all if None.

    Returns:
        An optax transformation; `update` needs `params`.

    Raises:
        ValueError: if no distribution has that name; at `init`, if a pattern matches nothing or
            the distribution cannot meet the schedule.

    Example:
        >>> tx = pruned(optax.sgd(0.1), one_shot(0.5))
        >>> params = {"kernel": jnp.asarray([[1.0, -3.0], [2.0, 0.5]])}
        >>> gradients = jax.tree.map(jnp.zeros_like, params)
        >>> updates, state = tx.update(gradients, tx.init(params), params)
        >>> optax.apply_updates(params, updates)["kernel"].tolist()
        [[0.0, -3.0], [2.0, 0.0]]
    """
    wrapped = optax.with_extra_args_support(optimizer)
    choice = _distribution(distribution)
    steps = np.asarray(schedule.at)

    def table(kernels: dict[str, Any]) -> dict[str, np.ndarray]:
        shapes = {name: jnp.shape(kernel) for name, kernel in kernels.items()}
        return choice.table(shapes, schedule.sparsities)

    def init(params: Any) -> PruningState:
        kernels = kernels_of(params, patterns)
        table(kernels)  # or it says why not
        kept = {name: jnp.ones(jnp.shape(kernel), bool) for name, kernel in kernels.items()}
        return PruningState(wrapped.init(params), jnp.zeros((), jnp.int32), kept)

    def update(
        updates: Any, state: PruningState, params: Any = None, **extra: Any
    ) -> tuple[Any, PruningState]:
        if params is None:
            raise InputError("pruned needs the parameters: call update(grads, state, params)")
        due = jnp.any(state.steps == steps)
        open_to = due & choice.anew

        def seen(path: Any, gradient: Any) -> Any:
            kept = state.kept.get(name_of(path))
            return gradient if kept is None else jnp.where(kept | open_to, gradient, 0)

        gradients = jax.tree_util.tree_map_with_path(seen, updates)
        updates, inner = wrapped.update(gradients, state.inner, params, **extra)

        def chosen() -> Kept:
            kernels = kernels_of(optax.apply_updates(params, updates), patterns)
            row = {name: jnp.asarray(rows)[event] for name, rows in table(kernels).items()}
            return choice.choose(kernels, state.kept, row)

        event = jnp.searchsorted(steps, state.steps)
        kept = jax.lax.cond(due, chosen, lambda: state.kept)

        def zeroed(path: Any, change: Any, parameter: Any) -> Any:
            own = kept.get(name_of(path))
            # p + (-p) is exactly 0: pruned weights do not wake, whatever moved them.
            return (
                change if own is None else jnp.where(own, change, -parameter.astype(change.dtype))
            )

        updates = jax.tree_util.tree_map_with_path(zeroed, updates, params)
        return updates, PruningState(inner, state.steps + 1, kept)

    return optax.GradientTransformationExtraArgs(init, update)


def _distribution(named: str | Distribution) -> Distribution:
    if isinstance(named, Distribution):
        return named
    if not isinstance(named, str):
        raise InputTypeError(
            f"pruned: distribution must be one of {', '.join(DISTRIBUTIONS)}, or an object that "
            f"morph.compress.given makes, found {shown(named)}"
        )
    if named not in DISTRIBUTIONS:
        raise InputError(f"pruning: no distribution {named!r}{near(named, DISTRIBUTIONS)}")
    return DISTRIBUTIONS[named]


def masks(opt_state: Any) -> Kept:
    """Which weights are kept, by path, from the state of an optimizer that `pruned` is part of.

    Raises:
        ValueError: if it is part of none, or of several.
    """
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, PruningState))
    found = [leaf for leaf in leaves if isinstance(leaf, PruningState)]
    if len(found) != 1:
        raise InputError(f"expected the state of one pruned optimizer, found {len(found)}")
    return found[0].kept


def finished(params: Any, opt_state: Any) -> Any:
    """The parameters, with `Pruned` values where kernels were pruned.

    Args:
        params: what was trained: arrays, or with compressed values where their arrays were trained
            (`morph.compress.training.train`).
        opt_state: of the optimizer that `pruned` made.

    Raises:
        ValueError: if the masks are not of these parameters.
    """
    kept = masks(opt_state)
    used = set()

    def value(path: Any, leaf: Any) -> Any:
        own = f"{name_of(path)}/kernel" if isinstance(leaf, Pruned) else name_of(path)
        if own not in kept:
            return leaf
        used.add(own)
        if isinstance(leaf, Pruned):
            return Pruned(kernel=leaf.kernel, kept=leaf.kept & kept[own])
        return Pruned(kernel=leaf, kept=kept[own])

    result = jax.tree_util.tree_map_with_path(
        value, params, is_leaf=lambda leaf: isinstance(leaf, Pruned)
    )
    if lacking := kept.keys() - used:
        raise InputError(
            f"the optimizer pruned {', '.join(sorted(lacking))}, which the parameters lack; pass "
            "those that it trained"
        )
    return result


@checked(params=TREE)
def kept_counts(params: Any) -> dict[str, tuple[int, int]]:
    """Of every kernel, by path, how many weights it keeps and how many it has.

    Arrays of one axis, as biases, are not counted; other kernels than `Pruned` ones keep all.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(
        params, is_leaf=lambda leaf: isinstance(leaf, Pruned)
    )
    return {
        name_of(path): (
            int(leaf.kept.sum()) if isinstance(leaf, Pruned) else math.prod(leaf.shape),
            math.prod(leaf.shape),
        )
        for path, leaf in leaves
        if isinstance(leaf, Pruned) or jnp.ndim(leaf) > 1
    }
