"""Sums over variables, also over those that devices share.

A compiler brings a sum together over the devices that share its variable: where variables are
divided differently, in an exchange each. Here all sums that do not wait for each other are one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool

# Of a variable's path and shape: how it is divided over a mesh.
Specs: TypeAlias = Callable[[str, tuple[int, ...]], PartitionSpec]
# Of an array and one of its axes: the sum over all others; over all of them if None.
Total: TypeAlias = Callable[[Any, int | None], Array]
Tree = TypeVar("Tree")


def total_here(array: Any, axis: int | None) -> Array:
    """The sum over all axes of an array but one, or over all."""
    return jnp.sum(array, axis=tuple(k for k in range(array.ndim) if k != axis))


class Sums:
    """Of variables that no devices share, or as the compiler likes."""

    def of(self, path: str, shape: tuple[int, ...]) -> Total:
        """How a variable, or an array that lies like it, is summed."""
        del path, shape
        return total_here

    def together(self, make: Callable[[Sums], Tree]) -> Tree:
        """What is made of sums, none of which is of something that was made of another."""
        return make(self)

    def after(self, tree: Tree) -> Tree:
        """Arrays that are not used before the sums so far: so memory is free for theirs."""
        return tree

    def laid(self, path: str, array: Any) -> Any:
        """A variable, or an array of its shape, where that lies."""
        del path
        return array

    def whole(self, tree: Tree) -> Tree:
        """Small arrays, whole on every device."""
        return tree

    def only_if(
        self, flag: Bool[Array, ""], make: Callable[[], Tree], idle: Callable[[], Tree]
    ) -> Tree:
        """What is made if a flag is set, else what is idle; what is not needed is not made."""
        made: Tree = lax.cond(flag, make, idle)
        return made


@dataclass(frozen=True)
class SharedSums(Sums):
    """Of variables that the devices of a mesh share.

    Attributes:
        mesh: of them.
        spec: how a variable is divided.
    """

    mesh: Mesh
    spec: Specs

    def together(self, make: Callable[[Sums], Tree]) -> Tree:
        """See `Sums`: it is made twice, first to see what is to be summed, with zeros for sums."""
        asked = _Asked(self.mesh, self.spec)
        make(asked)
        return make(_Answered(self.mesh, self.spec, iter(asked.summed())))

    def laid(self, path: str, array: Any) -> Any:
        """See `Sums`."""
        place = NamedSharding(self.mesh, self.spec(path, array.shape))
        return lax.with_sharding_constraint(array, place)

    def whole(self, tree: Tree) -> Tree:
        """See `Sums`."""
        return lax.with_sharding_constraint(tree, NamedSharding(self.mesh, PartitionSpec()))

    def only_if(
        self, flag: Bool[Array, ""], make: Callable[[], Tree], idle: Callable[[], Tree]
    ) -> Tree:
        """See `Sums`; but both are made: a branch would have exchanges of its own."""
        return jax.tree.map(lambda one, other: jnp.where(flag, one, other), make(), idle())


@dataclass(frozen=True)
class _Asked(SharedSums):
    """Sums that are still to be brought together: of each, what every device adds to it."""

    parts: list[Array] = field(default_factory=list)  # [devices, *shape]

    def of(self, path: str, shape: tuple[int, ...]) -> Total:
        spec = self.spec(path, shape)

        def total(array: Any, axis: int | None) -> Array:
            if not any(map(_names, spec)):
                return total_here(array, axis)
            none = jnp.zeros(() if axis is None else array.shape[axis], array.dtype)
            self.parts.append(
                jax.shard_map(
                    lambda part: self._own(part, spec, axis, none)[None],
                    mesh=self.mesh,
                    in_specs=spec,
                    out_specs=self._each,
                )(array)
            )
            return none

        return total

    def after(self, tree: Tree) -> Tree:
        later, own = lax.optimization_barrier((tree, tuple(self.parts)))
        self.parts[:] = own
        return later

    def summed(self) -> list[Array]:
        """All sums, whole on every device, in one exchange."""
        if not self.parts:
            return []
        wide = jnp.result_type(*self.parts)

        def exchanged(*own: Any) -> list[Array]:
            flat = [one.reshape(-1).astype(wide) for one in own]
            ends = list(itertools.accumulate(map(len, flat)))
            found = jnp.split(lax.psum(jnp.concatenate(flat), self.mesh.axis_names), ends[:-1])
            pairs = zip(found, own, strict=True)
            return [one.reshape(part.shape[1:]).astype(part.dtype) for one, part in pairs]

        summed: list[Array] = jax.shard_map(
            exchanged, mesh=self.mesh, in_specs=self._each, out_specs=PartitionSpec()
        )(*self.parts)
        return summed

    def _own(self, part: Any, spec: PartitionSpec, axis: int | None, none: Array) -> Array:
        """What a device adds: the sum of its part of an array, at the part's position."""
        found = total_here(part, axis)
        if axis is not None and found.shape != none.shape:
            start = lax.axis_index(_names(spec[axis])) * len(found)
            found = lax.dynamic_update_slice(jnp.zeros_like(none), found, (start,))
        used = {name for entry in spec for name in _names(entry)}
        alike = tuple(name for name in self.mesh.axis_names if name not in used)
        return jnp.where(lax.axis_index(alike) == 0, found, 0) if alike else found

    @property
    def _each(self) -> PartitionSpec:
        return PartitionSpec(self.mesh.axis_names)


@dataclass(frozen=True)
class _Answered(SharedSums):
    """Gives what was summed, in the order in which it was asked for."""

    answers: Iterator[Array]

    def of(self, path: str, shape: tuple[int, ...]) -> Total:
        spec = self.spec(path, shape)

        def total(array: Any, axis: int | None) -> Array:
            return next(self.answers) if any(map(_names, spec)) else total_here(array, axis)

        return total


def _names(entry: Any) -> tuple[str, ...]:
    """The axes of the mesh in an entry of a partition spec."""
    if entry is None:
        return ()
    return (entry,) if isinstance(entry, str) else tuple(entry)
