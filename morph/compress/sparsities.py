"""How sparsity is divided among layers, and which weights of them stay.

A distribution has two halves. `table` is Python on shapes, before training: how many weights stay
at each pruning step, exactly. `choose` is JAX on values, at a pruning step: which.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from regularizers.checks import by_name, check, checked, number, whole
from regularizers.errors import InputError
from regularizers.messages import near
from regularizers.patterns import spells

Kernels: TypeAlias = Mapping[str, Any]  # by path, e.g. "Dense_0/kernel"
Kept: TypeAlias = dict[str, Bool[Array, "..."]]
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
Score: TypeAlias = Callable[[Float[Array, "..."], Bool[Array, "..."]], Float[Array, "..."]]


@runtime_checkable
class Distribution(Protocol):
    """Chooses the weights that stay."""

    @property
    def anew(self) -> bool:
        """Whether weights that were pruned may be chosen again."""
        ...

    def table(self, shapes: Shapes, sparsities: Sequence[float]) -> dict[str, np.ndarray]:
        """What `choose` needs for each of the sparsities; its arrays have these as first axis.

        Raises:
            ValueError: if the shapes allow no such sparsities.
        """
        ...

    def choose(self, kernels: Kernels, kept: Kept, row: Mapping[str, Any]) -> Kept:
        """Which weights stay, of those that did so far; `row` is of the table."""
        ...


# ---- Kernels by name


def kernels_of(params: Any, patterns: Collection[str] | None = None) -> dict[str, Any]:
    """The arrays that pruning may take from, by path.

    Args:
        params: a tree of arrays; None stands for what is not trained.
        patterns: of `fnmatch`, each for a path or a module around it: `Dense_0`, `*/kernel`. None
            for every floating-point array of more than one axis; they choose among these.

    Raises:
        ValueError: if there are none, or if a pattern matches none; with near matches.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    found = {name_of(path): leaf for path, leaf in leaves if _is_kernel(leaf)}
    if not found:
        raise InputError("pruning: no floating-point array of more than one axis to prune")
    if patterns is None:
        return found
    chosen = {name for pattern in patterns for name in matches(pattern, found, "pruning")}
    if not chosen:
        raise InputError("pruning: no patterns; leave them out to prune every kernel")
    return {name: leaf for name, leaf in found.items() if name in chosen}


def name_of(path: Any) -> str:
    """A path of the tree as users write it."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _is_kernel(leaf: Any) -> bool:
    return jnp.ndim(leaf) > 1 and bool(jnp.issubdtype(jnp.result_type(leaf), jnp.floating))


def matches(pattern: str, names: Collection[str], what: str) -> list[str]:
    """The names that a pattern matches, or whose module it does.

    Raises:
        ValueError: if there are none; with near matches.
    """
    found = [name for name in names if spells(pattern, name)]
    if not found:
        raise InputError(f"{what}: {pattern!r} matches no kernel{near(pattern, names)}")
    return found


# ---- So many of each layer


Shares: TypeAlias = Callable[[Shapes], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Layerwise:
    """Every layer keeps its largest weights, in proportion to its share; at most all of them.

    Attributes:
        shares: of a layer's weights, up to a factor that is the same for all layers.
    """

    shares: Shares
    anew: ClassVar[bool] = False

    def densities(self, shapes: Shapes, sparsity: float) -> dict[str, float]:
        """What part of each layer stays, so that `1 - sparsity` of all weights do.

        Layers that would keep more than all are dense, and the others keep that much less.
        """
        shares = self.shares(shapes)
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        total, found = sum(sizes.values()), dict.fromkeys(shapes, 1.0)
        free = set(shapes)
        while free:
            left = 1.0 - sparsity - sum(sizes[name] for name in shapes if name not in free) / total
            # In this order a uniform density is 1 - sparsity to the last bit.
            factor = left * (total / sum(shares[name] * sizes[name] for name in free))
            over = {name for name in free if factor * shares[name] > 1.0}
            if not over:
                return found | {name: factor * shares[name] for name in free}
            free -= over
        return found

    def table(self, shapes: Shapes, sparsities: Sequence[float]) -> dict[str, np.ndarray]:
        """How many weights each layer keeps: round(density x size)."""
        rows = [self.densities(shapes, sparsity) for sparsity in sparsities]
        counts = {
            name: np.array([round(row[name] * math.prod(shape)) for row in rows], np.int32)
            for name, shape in shapes.items()
        }
        for name, own in counts.items():
            if not own.all():
                raise InputError(
                    f"pruning: {name} of {math.prod(shapes[name])} weights would keep none at a "
                    f"sparsity of {sparsities[int(np.argmin(own))]}, so that no signal could "
                    "pass; ask for less, or leave this layer out with patterns"
                )
        return counts

    def choose(self, kernels: Kernels, kept: Kept, row: Mapping[str, Any]) -> Kept:
        """The largest of each layer."""
        return {
            name: largest(scored(jnp.abs(kernel), kept[name]).ravel(), row[name]).reshape(
                kernel.shape
            )
            for name, kernel in kernels.items()
        }


def uniform(shapes: Shapes) -> dict[str, float]:
    """The same part of every layer."""
    return dict.fromkeys(shapes, 1.0)


def erk(shapes: Shapes) -> dict[str, float]:
    """More of small layers: Erdős-Rényi-Kernel.

    A layer's share is the sum of its axes' lengths over their product.

    Source: Mocanu et al. 2018; Evci et al. 2020, section 3, for kernels of more than two axes.
    """
    return {name: sum(shape) / math.prod(shape) for name, shape in shapes.items()}


@checked(shares=by_name(number(least=0.0), "finite numbers of at least 0 by pattern"))
def given(shares: Mapping[str, float]) -> Layerwise:
    """Shares by pattern, the first that matches wins: of a paper, or of a sensitivity scan.

    Args:
        shares: what part of a layer stays, in (0, 1]. All are scaled by one factor to meet the
            sparsity that is asked for; what exceeds 1 is dense.

    Raises:
        ValueError: if a share is none; when used, if a pattern matches no layer, or a layer has
            no pattern.

    Example:
        >>> layers = given({"a": 0.2, "*": 0.6})
        >>> layers.densities({"a/kernel": (5, 6), "b/kernel": (5, 2)}, 0.4)
        {'a/kernel': 0.4666..., 'b/kernel': 1.0}
    """
    for pattern, share in shares.items():
        if not 0.0 < share <= 1.0:
            raise InputError(
                f"pruning: {pattern!r} is to keep a share of {share}; it must be above 0 and at "
                "most 1"
            )

    def found(shapes: Shapes) -> dict[str, float]:
        own: dict[str, float] = {}
        for pattern, share in shares.items():
            for name in matches(pattern, shapes, "shares"):
                own.setdefault(name, share)
        if lacking := [name for name in shapes if name not in own]:
            raise InputError(f"pruning: no share is given for {', '.join(lacking)}; add '*': ...")
        return own

    return Layerwise(shares=found)


# ---- The largest of all layers


@dataclass(frozen=True, kw_only=True)
class Together:
    """The weights of all layers compete: one threshold for their scores.

    A layer may lose all of its weights.

    Attributes:
        score: of a kernel's weights, of which some were kept so far; not negative.
    """

    score: Score
    anew: ClassVar[bool] = False

    def table(self, shapes: Shapes, sparsities: Sequence[float]) -> dict[str, np.ndarray]:
        """How many weights stay in all."""
        total = sum(map(math.prod, shapes.values()))
        return {"": np.array([round((1.0 - sparsity) * total) for sparsity in sparsities])}

    def choose(self, kernels: Kernels, kept: Kept, row: Mapping[str, Any]) -> Kept:
        """The largest of all."""
        scores = {
            name: scored(self.score(kernel, kept[name]), kept[name]).astype(jnp.float32)
            for name, kernel in kernels.items()
        }
        chosen = largest(jnp.concatenate([each.ravel() for each in scores.values()]), row[""])
        ends = np.cumsum([each.size for each in scores.values()])[:-1]
        parts = jnp.split(chosen, ends)
        return {
            name: part.reshape(each.shape)
            for (name, each), part in zip(scores.items(), parts, strict=True)
        }


def magnitude(kernel: Float[Array, "..."], kept: Bool[Array, "..."]) -> Float[Array, "..."]:
    """|w|."""
    del kept
    return jnp.abs(kernel)


def deviations(kernel: Float[Array, "..."], kept: Bool[Array, "..."]) -> Float[Array, "..."]:
    """|w| in standard deviations of the weights that the layer still has.

    One threshold for these is a quality parameter times each layer's standard deviation, and the
    quality is the one that meets the sparsity (Han et al. 2015, section 4).
    """
    kernel = kernel.astype(jnp.float32)
    deviation = jnp.std(kernel, where=kept)
    return jnp.abs(kernel) / jnp.where(deviation > 0, deviation, 1)


# ---- N of every M


@dataclass(frozen=True, kw_only=True)
class NOfM:
    """N of every M consecutive weights along the input axis stay, the largest.

    A last group that is shorter counts as if it were filled up with zeros: it keeps N of what it
    has, or all. Before the schedule's end groups keep round((1 - sparsity) M), at least N. Pruned
    weights stand again for every choice, with what the optimizer would make of them.

    Attributes:
        n: how many stay.
        m: of how many.
        axis: of inputs: -2 in Flax's dense layers and convolutions.

    Raises:
        ValueError: unless 0 < n <= m.
    """

    n: int
    m: int
    axis: int = -2
    anew: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuses what cannot be."""
        check("NOfM", vars(self), {"n": whole(least=1), "m": whole(least=1), "axis": whole()})
        if not 0 < self.n <= self.m:
            raise InputError(f"N:M is {self.n}:{self.m}; N must be at least 1 and at most M")

    def table(self, shapes: Shapes, sparsities: Sequence[float]) -> dict[str, np.ndarray]:
        """How many of every group stay."""
        counts = [max(self.n, round((1.0 - sparsity) * self.m)) for sparsity in sparsities]
        if round((1.0 - sparsities[-1]) * self.m) != self.n:
            raise InputError(
                f"pruning: {self.n}:{self.m} is a sparsity of {1.0 - self.n / self.m:.4g}, but the "
                f"schedule ends at {sparsities[-1]}; let it end there"
            )
        return {"": np.array(counts, np.int32)}

    def choose(self, kernels: Kernels, kept: Kept, row: Mapping[str, Any]) -> Kept:
        """The largest of each group."""
        del kept
        return {name: self._of(jnp.abs(kernel), row[""]) for name, kernel in kernels.items()}

    def _of(self, scores: Float[Array, "..."], count: Any) -> Bool[Array, "..."]:
        moved = jnp.moveaxis(scores, self.axis, -1)  # [..., inputs]
        length = moved.shape[-1]
        filled = jnp.pad(
            moved, [(0, 0)] * (moved.ndim - 1) + [(0, -length % self.m)], constant_values=-1
        )
        groups = filled.reshape(*filled.shape[:-1], -1, self.m)
        chosen = largest(groups, count).reshape(filled.shape)[..., :length]
        return jnp.moveaxis(chosen, -1, self.axis)


DISTRIBUTIONS: Mapping[str, Distribution] = {
    "uniform": Layerwise(shares=uniform),
    "erk": Layerwise(shares=erk),
    "global": Together(score=magnitude),
    "deviation": Together(score=deviations),
}


# ---- Ranks


def scored(scores: Float[Array, "..."], kept: Bool[Array, "..."]) -> Float[Array, "..."]:
    """What is pruned comes after everything else."""
    return jnp.where(kept, scores, -1)


def largest(scores: Float[Array, "*groups n"], count: Any) -> Bool[Array, "*groups n"]:
    """Whether each is among the `count` largest of its group: of equal ones the first are."""
    order = jnp.argsort(-scores, axis=-1, stable=True)
    return jnp.argsort(order, axis=-1) < count
