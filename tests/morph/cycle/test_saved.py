"""The file of a checkpoint gives back every bit; that of versions before, too."""

import hashlib
import json
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morph.cycle.orbax_files import write_arrays
from morph.cycle.saved import TornError, named, parts_of, read
from morph.errors import WorkdirError
from morph.files import write_parts

TREE = {
    "params": {"a/b": np.arange(15, dtype=np.float32), "c": np.zeros((0, 3), np.float32)},
    "opt_state": (np.int32(7), {"x.y": np.asarray([-0.0, np.inf], np.float16)}),
    "half": np.asarray(jnp.arange(3, dtype=jnp.bfloat16)),
    "turned": np.arange(6.0).reshape(2, 3).T,
    "mask": np.asarray([True, False]),
}
ARRAYS = {name: np.array(leaf) for name, leaf in named(TREE)}
PROGRESS = {"turn": 2, "strength": 0.1}


def written(path, number=2):
    write_parts(path, parts_of(number, ARRAYS, PROGRESS))
    return path


def same(one, other):
    found = jax.tree.map(
        lambda a, b: np.dtype(a.dtype) == b.dtype and a.tobytes() == b.tobytes(), one, other
    )
    return all(jax.tree.leaves(found))


def test_a_checkpoint_gives_back_every_bit(tmp_path):
    found = read(written(tmp_path / "2.ckpt"))
    assert (found.number, found.progress) == (2, PROGRESS)
    assert same(found.into(TREE), TREE)
    other = {**TREE, "params": {"a/b": np.zeros(5), "c": np.zeros((0, 3))}}
    with pytest.raises(WorkdirError, match=r"params.a/b has shape \(15,\) there, \(5,\) asked"):
        found.into(other)


def test_a_checksum_that_agrees_makes_no_checkpoint(tmp_path):
    parts = [b"\x89MORPHC\n" + (2).to_bytes(8, "little"), b"[]"]
    digest = hashlib.sha256(b"".join(parts)).digest()
    (tmp_path / "2.ckpt").write_bytes(b"".join([*parts, digest]))
    with pytest.raises(TornError, match="it is not a checkpoint"):
        read(tmp_path / "2.ckpt")


def test_a_checkpoint_of_a_version_before_is_read(tmp_path):
    place = tmp_path / "3"
    arrays = {name: array for name, array in ARRAYS.items() if array.size}
    write_arrays(place / "arrays", arrays)
    crc32 = zlib.crc32(json.dumps(PROGRESS, sort_keys=True).encode())
    for name in sorted(arrays):
        crc32 = zlib.crc32(arrays[name].tobytes(), zlib.crc32(name.encode(), crc32))
    facts = {"progress": PROGRESS, "crc32": crc32, "empty": {"params.c": [[0, 3], "float32"]}}
    (place / "facts").mkdir()
    metadata = place / "facts" / "metadata"
    metadata.write_text(json.dumps(facts))
    found = read(place)
    assert (found.number, found.progress) == (3, PROGRESS)
    assert same(found.into(TREE), TREE)
    metadata.write_text(json.dumps({**facts, "crc32": 0}))
    with pytest.raises(TornError, match="its checksum is wrong"):
        read(place)
    metadata.write_text("{")
    with pytest.raises(WorkdirError, match="its facts cannot be read"):
        read(place)
