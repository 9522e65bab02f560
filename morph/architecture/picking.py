"""Taking positions of an array along its axes, where the array lies: nothing moves that need not.

The result lies as the array did: on its device, or divided among the same devices along the same
axes. It shares no memory with the array, so that either can be donated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding

from morph.errors import ArchitectureError


@dataclass(frozen=True, kw_only=True)
class Pick:
    """What is taken along one axis.

    Attributes:
        axis: of the array.
        index: int [length], the positions.
        share: [length], what each is divided by, the number of its clones; None for nothing.
    """

    axis: int
    index: np.ndarray
    share: np.ndarray | None = None


def picked(leaf: Any, picks: Sequence[Pick], path: str) -> Any:
    """The array, or abstract array, with these positions.

    Args:
        leaf: any leaf of a tree.
        picks: at most one per axis; none for a copy.
        path: of the leaf, for messages.

    Raises:
        ArchitectureError: if it is divided among devices along an axis whose new length they do not
            divide.
    """
    if isinstance(leaf, jax.ShapeDtypeStruct):
        sharding = leaf.sharding
        _check_divides(sharding, leaf.shape, _shape(leaf, picks), path)
        return jax.ShapeDtypeStruct(_shape(leaf, picks), leaf.dtype, sharding=sharding)
    if isinstance(leaf, jax.core.Tracer) or not isinstance(leaf, jax.Array):
        for pick in picks:
            leaf = _shared(_traced(leaf, pick), pick)
        return leaf
    if not picks:
        return jax.device_put(leaf, leaf.sharding, may_alias=False)
    _check_divides(leaf.sharding, leaf.shape, _shape(leaf, picks), path)
    if len(leaf.devices()) == 1:
        taken = np.asarray(leaf)  # NumPy compiles nothing, where JAX would for every shape
        for pick in picks:
            taken = _shared(taken.take(pick.index, axis=pick.axis), pick)
        return jax.device_put(taken, leaf.sharding)
    return _assembled(leaf, picks) if leaf.is_fully_addressable else _compiled(leaf, picks)


def _shape(leaf: Any, picks: Sequence[Pick]) -> tuple[int, ...]:
    lengths = {pick.axis: len(pick.index) for pick in picks}
    return tuple(lengths.get(k, n) for k, n in enumerate(leaf.shape))


def _shared(leaf: Any, pick: Pick) -> Any:
    if pick.share is None:
        return leaf
    ones = [-1 if k == pick.axis else 1 for k in range(leaf.ndim)]
    return leaf / pick.share.reshape(ones).astype(leaf.dtype)


def _traced(leaf: Any, pick: Pick) -> Any:
    """Under an explicit mesh the type of the result, its sharding, has to be said."""
    sharding = getattr(jax.typeof(leaf), "sharding", None)
    if sharding is None or not any(kind is AxisType.Explicit for kind in sharding.mesh.axis_types):
        return leaf.take(pick.index, axis=pick.axis)
    places = (*(slice(None),) * pick.axis, pick.index)
    return leaf.at[places].get(out_sharding=sharding)


def _check_divides(sharding: Any, old: tuple[int, ...], new: tuple[int, ...], path: str) -> None:
    if sharding is None or old == new:
        return
    for k, (n, own) in enumerate(zip(old, sharding.shard_shape(old), strict=True)):
        count = n // own if own else 1
        if new[k] % count:
            raise ArchitectureError(
                f"cannot keep {path!r} divided as it is: {count} devices share its axis {k}, which "
                f"would be {new[k]} long, {old[k]} in the seed. Shrink to widths that they divide: "
                f"morph.shrink(..., round_to={count}); or pass it whole along this axis."
            )


def _assembled(leaf: jax.Array, picks: Sequence[Pick]) -> jax.Array:
    """Every device's part, put together from the parts that hold its positions."""
    sources = {_starts(shard.index): shard for shard in leaf.addressable_shards}
    index = [np.arange(n) for n in leaf.shape]
    for pick in picks:
        index[pick.axis] = pick.index
    read: dict[tuple[int, ...], np.ndarray] = {}

    def part(where: Any) -> np.ndarray:
        wanted = [own[place] for own, place in zip(index, where, strict=True)]
        out = np.empty([len(own) for own in wanted], leaf.dtype)
        for start, shard in sources.items():
            shape = shard.data.shape
            here = [
                np.flatnonzero((own >= s) & (own < s + n))
                for own, s, n in zip(wanted, start, shape, strict=True)
            ]
            if all(map(len, here)):
                if start not in read:
                    read[start] = np.asarray(shard.data)
                inner = [own[at] - s for own, at, s in zip(wanted, here, start, strict=True)]
                out[np.ix_(*here)] = read[start][np.ix_(*inner)]
        for pick in picks:
            if pick.share is not None:
                own = Pick(axis=pick.axis, index=pick.index, share=pick.share[where[pick.axis]])
                out = _shared(out, own)
        return out

    return jax.make_array_from_callback(_shape(leaf, picks), leaf.sharding, part)


def _starts(index: tuple[slice, ...]) -> tuple[int, ...]:
    return tuple(place.start or 0 for place in index)


def _compiled(leaf: jax.Array, picks: Sequence[Pick]) -> jax.Array:
    """Where other processes hold parts, they all run one program."""
    sharding = leaf.sharding
    if isinstance(sharding, NamedSharding):  # XLA moves parts; explicit axes would have to be said
        mesh = sharding.mesh
        kinds = (AxisType.Auto,) * len(mesh.axis_names)
        mesh = Mesh(mesh.devices, mesh.axis_names, axis_types=kinds)
        sharding = NamedSharding(mesh, sharding.spec, memory_kind=sharding.memory_kind)

    def run(array: Any) -> Any:
        for pick in picks:
            array = _shared(jnp.take(array, pick.index, axis=pick.axis), pick)
        return array

    taken = jax.jit(run, out_shardings=sharding)(jax.device_put(leaf, sharding))
    return jax.device_put(taken, leaf.sharding)
