"""The file of a checkpoint: arrays and progress under one checksum, so that damage can be proven.

    magic (8 bytes) | header length u64 | header | arrays, in its order | SHA-256 of all before

The header is JSON: `number`, `progress`, and of every array its name, dtype and shape. Everything
is little-endian. Versions before kept a folder of Orbax for each checkpoint: read, too.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from morph.cycle.orbax_files import read_arrays
from morph.errors import WorkdirError
from regularizers import json_files
from regularizers.json_files import JsonError

SUFFIX = ".ckpt"
_MAGIC = b"\x89MORPHC\n"
_HEAD = struct.Struct("<8sQ")
_DIGEST = 32


class TornError(WorkdirError):
    """A checkpoint that could be read, and is not what was written: nothing will make it whole."""


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A checkpoint that was read and found whole.

    Attributes:
        number: its number; higher ones are newer.
        arrays: by the path of their leaf.
        progress: what was known besides, plain JSON.
    """

    number: int
    arrays: dict[str, np.ndarray]
    progress: dict[str, Any]

    def into(self, like: Any) -> Any:
        """The arrays in the structure of `like` (arrays or abstract ones).

        Raises:
            WorkdirError: if the checkpoint has other arrays.
        """
        wanted = {name: np.shape(leaf) for name, leaf in named(like)}
        found = {name: array.shape for name, array in self.arrays.items()}
        if odd := sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name)):
            raise WorkdirError(
                f"checkpoint {self.number} is of another network or optimizer: {odd[0]} has shape "
                f"{found.get(odd[0])} there, {wanted.get(odd[0])} asked for ({len(odd)} differ)"
            )
        return jax.tree.unflatten(jax.tree.structure(like), [self.arrays[name] for name in wanted])


def named(tree: Any) -> list[tuple[str, Any]]:
    """The leaves of a tree with the names that they have in a checkpoint."""
    leaves = jax.tree.leaves_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in leaves]


def parts_of(
    number: int, arrays: Mapping[str, np.ndarray], progress: Mapping[str, Any]
) -> Iterator[bytes | memoryview]:
    """What the file of a checkpoint holds, part by part."""
    told = [[name, array.dtype.name, array.shape] for name, array in arrays.items()]
    header = json.dumps({"number": number, "progress": progress, "arrays": told}).encode()
    sha256 = hashlib.sha256()
    parts: list[bytes | memoryview] = [_HEAD.pack(_MAGIC, len(header)), header]
    parts += map(_bytes, arrays.values())
    for part in parts:
        sha256.update(part)
        yield part
    yield sha256.digest()


def read(path: Path) -> Saved:
    """The checkpoint in a file, or in the folder of a version before.

    Raises:
        TornError: if it is proven to be not what was written.
        OSError, WorkdirError: if it cannot be read: that tells nothing about it.
    """
    if path.is_dir():
        return _read_folder(path)
    data = path.read_bytes()
    body, digest = memoryview(data)[:-_DIGEST], data[-_DIGEST:]
    if len(data) < _HEAD.size + _DIGEST or hashlib.sha256(body).digest() != digest:
        raise TornError("its checksum is wrong")
    try:
        magic, length = _HEAD.unpack_from(body)
        start = _HEAD.size + length
        header = json.loads(bytes(body[_HEAD.size : start]))
        arrays = {}
        for name, dtype, shape in header["arrays"]:
            kind, count = jnp.dtype(dtype), math.prod(shape)
            arrays[name] = np.frombuffer(body, kind, count, start).reshape(shape)
            start += count * kind.itemsize
        if magic != _MAGIC or start != len(body):
            raise ValueError("its header is incomplete")
        saved = Saved(number=header["number"], arrays=arrays, progress=dict(header["progress"]))
    except (KeyError, TypeError, ValueError, RecursionError, struct.error) as error:
        raise TornError(f"it is not a checkpoint ({error})") from error
    if path.stem != str(saved.number):
        raise WorkdirError(f"{path.name} holds checkpoint {saved.number}; rename it")
    return saved


def _read_folder(path: Path) -> Saved:
    try:
        facts = json_files.read_object(path / "facts" / "metadata")
        progress, told, empty = (facts[name] for name in ("progress", "crc32", "empty"))
    except (JsonError, KeyError) as error:
        raise WorkdirError(f"its facts cannot be read: {error}") from error
    arrays = {name: np.asarray(array) for name, array in read_arrays(path / "arrays").items()}
    crc32 = zlib.crc32(json.dumps(progress, sort_keys=True).encode())
    for name in sorted(arrays):
        crc32 = zlib.crc32(_bytes(arrays[name]), zlib.crc32(name.encode(), crc32))
    if crc32 != told:
        raise TornError("its checksum is wrong")
    arrays |= {name: np.zeros(*shape_dtype) for name, shape_dtype in empty.items()}
    return Saved(number=int(path.name), arrays=arrays, progress=progress)


def _bytes(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data
