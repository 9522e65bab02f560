"""A checkpoint of arrays that no process holds whole: a folder that all processes write and read.

    3.shards/facts.json   number, progress, and of every array its name, dtype, shape and checksum
    3.shards/arrays/      what Orbax writes

Checksums do not depend on how an array is divided: so it can be read on other devices, and damage
is proven there. Nothing of an array but its own parts ever comes to a process.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, UInt32

from morph.cycle.orbax_files import read_shards, write_shards
from morph.cycle.saved import Saved, TornError
from morph.files import sync, write_text
from morph.training.mesh import any_of, data_mesh, from_first
from regularizers import json_files
from regularizers.host import on_devices
from regularizers.json_files import JsonError

SHARDS = ".shards"  # of the names of folders


def is_divided(tree: Any) -> bool:
    """Whether there is an array of which some process holds a part only."""
    return any(
        isinstance(leaf, jax.Array)
        and not leaf.is_fully_addressable
        and not leaf.is_fully_replicated
        for leaf in jax.tree.leaves(tree)
    )


def all_see(folder: Path) -> bool:
    """Whether all processes see a folder that process 0 sees."""
    (hidden,) = any_of(not folder.is_dir())
    return not hidden


@dataclass(frozen=True, kw_only=True)
class Shards:
    """A checkpoint that all processes read together.

    Attributes:
        folder: where it is.
        number: its number; higher ones are newer.
        facts: what `facts.json` says.
    """

    folder: Path
    number: int
    facts: Mapping[str, Any]

    @classmethod
    def found(cls, folder: Path) -> Shards:
        """One in a folder; for process 0.

        Raises:
            TornError: if it is proven to be not what was written.
            OSError: if it cannot be read.
        """
        try:
            facts = json_files.read_object(folder / "facts.json")
            return cls(folder=folder, number=int(facts["number"]), facts=facts)
        except (JsonError, KeyError, FileNotFoundError) as error:
            raise TornError(f"it is not a checkpoint ({error})") from error

    def read(self) -> Saved:
        """Its arrays, each divided over all devices if that is even; in all processes.

        Raises:
            TornError: if they are proven to be not what was written.
            WorkdirError: if they cannot be read: that tells nothing about them.
        """
        told, mesh = self.facts["arrays"], data_mesh()
        like = {
            name: jax.ShapeDtypeStruct(
                tuple(one["shape"]), jnp.dtype(one["dtype"]), sharding=_spread(mesh, one["shape"])
            )
            for name, one in told.items()
        }
        full = {name: leaf for name, leaf in like.items() if leaf.size}
        arrays: dict[str, Any] = dict(read_shards(self.folder / "arrays", full))
        found, _ = _summed(arrays)
        wrong = [name for name, own in found.items() if own != told[name]["checksum"]]
        if wrong:
            raise TornError(f"the checksum of {wrong[0]} is wrong")
        empty = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in like.items()}
        arrays = {name: arrays.get(name, empty[name]) for name in told}
        return Saved(number=self.number, arrays=arrays, progress=dict(self.facts["progress"]))


def write(
    folder: Path,
    number: int,
    arrays: Mapping[str, Array],
    progress: Mapping[str, Any],
    check: Callable[[list[str]], None],
) -> None:
    """Writes a checkpoint; it is complete or not there at all. In all processes.

    Args:
        folder: the same in all, and seen by all.
        number: of the checkpoint.
        arrays: by name; those that are equal in all processes may be NumPy's.
        progress: plain JSON.
        check: takes the names of arrays that are not finite, and raises if that is an error.

    Raises:
        WorkdirError: if it cannot be written.
    """
    mesh = data_mesh()
    full = {name: _global(leaf, mesh) for name, leaf in arrays.items() if np.size(leaf)}
    sums, finite = _summed(full)
    check([name for name, flag in finite.items() if not flag])
    draft = folder.with_name(folder.name + ".part")

    def begin() -> None:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)

    def end() -> None:
        told = {
            name: {
                "dtype": jnp.dtype(leaf.dtype).name,
                "shape": list(np.shape(leaf)),
                "checksum": sums.get(name, 0),
            }
            for name, leaf in arrays.items()
        }
        facts = {"number": number, "progress": dict(progress), "arrays": told}
        write_text(draft / "facts.json", json.dumps(facts))
        draft.rename(folder)
        sync(folder.parent)

    from_first(begin)
    write_shards(draft / "arrays", full)
    from_first(end)


def _global(leaf: Any, mesh: Mesh) -> jax.Array:
    """An array of all processes."""
    if isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) == mesh.size:
        return leaf
    return on_devices(leaf, NamedSharding(mesh, PartitionSpec()))


def _spread(mesh: Mesh, shape: list[int]) -> NamedSharding:
    """Along the longest axis that all devices of a mesh divide evenly; else whole."""
    even = [k for k, n in enumerate(shape) if n and n % mesh.size == 0]
    k = max(even, key=lambda k: shape[k], default=None)
    spec = PartitionSpec() if k is None else PartitionSpec(*(None,) * k, *mesh.axis_names)
    return NamedSharding(mesh, spec)


def _summed(arrays: Mapping[str, jax.Array]) -> tuple[dict[str, int], dict[str, bool]]:
    """Of every array its checksum, and whether it is finite."""
    sums, finite = jax.jit(lambda tree: (jax.tree.map(checksum, tree), jax.tree.map(_ok, tree)))(
        dict(arrays)
    )
    return (
        {name: int(np.asarray(one.addressable_data(0))) for name, one in sums.items()},
        {name: bool(np.asarray(one.addressable_data(0))) for name, one in finite.items()},
    )


def _ok(array: Array) -> Bool[Array, ""]:
    return jnp.isfinite(array).all() if jnp.issubdtype(array.dtype, jnp.inexact) else jnp.bool_(1)


def checksum(array: Array) -> UInt32[Array, ""]:
    """The sum of a hash of every number and its position: so the order of summing is no matter."""
    if array.dtype == bool:
        array = array.astype(jnp.uint8)
    elif jnp.issubdtype(array.dtype, jnp.complexfloating):
        array = jnp.stack([array.real, array.imag], -1)
    bits = lax.bitcast_convert_type(array, _WORDS[min(4, array.dtype.itemsize)])
    at = jnp.zeros(bits.shape, jnp.uint32)
    for k, n in enumerate(bits.shape):
        at = at * np.uint32(n) + lax.broadcasted_iota(jnp.uint32, bits.shape, k)
    # The finalizer of MurmurHash3 (Appleby 2008): every bit changes half of all.
    word = bits.astype(jnp.uint32) ^ (at * np.uint32(0x9E3779B1))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        word = (word ^ (word >> shift)) * np.uint32(factor)
    return (word ^ (word >> 16)).sum(dtype=jnp.uint32)


_WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}
