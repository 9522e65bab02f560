"""Files of networks: bit for bit, whatever stands in them; hostile files give one clear error."""

import hashlib
import struct
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morph.compress.coding import container
from morph.compress.coding.container import ContainerError, load, pack, same, save, unpack
from morph.compress.coding.symbols import CODERS, entropy_bits
from morph.compress.fixed_point import FixedPointCodes, Precision
from morph.kernels.compressed import Pruned, Shared
from morph.kernels.decompose import factorize


def variables():
    """One leaf of every kind, and the corner cases of each."""
    g = np.random.default_rng(0)
    normal = g.standard_normal((13, 11)).astype(np.float32)
    codes = (g.integers(1, 9, (40, 30)) * (g.random((40, 30)) < 0.07)).astype(np.uint8)
    codes[5:30] = 0  # gaps that take fillers
    centroids = jnp.asarray(g.standard_normal(8), jnp.float32)
    cores = factorize(normal, "io", "svd", 3).value
    words = g.integers(-8, 8, (5, 7)).astype(np.int8)
    return {
        "params": {
            "pruned": Pruned(kernel=jnp.where(normal > 1, normal, 0), kept=jnp.asarray(normal > 1)),
            "all pruned": Pruned(kernel=jnp.zeros((3, 2)), kept=jnp.zeros((3, 2), bool)),
            "shared": Shared(centroids=centroids, codes=jnp.asarray(codes)),
            "one value": Shared(centroids=centroids[:1], codes=jnp.ones((4, 3), jnp.uint16)),
            "all zero": Shared(centroids=centroids[:0], codes=jnp.zeros((4, 3), jnp.uint8)),
            "fixed": FixedPointCodes(
                codes=jnp.asarray(words),
                precision=Precision(word_length=4, fractional_length=-3),
            ),
            "wide": FixedPointCodes(
                codes=jnp.asarray(words.astype(np.int16) * 4000),
                precision=Precision(word_length=16, fractional_length=9),
            ),
            "cores": cores,
            "half": jnp.asarray(normal, jnp.bfloat16),
            "empty": jnp.zeros((0, 3)),
        },
        "batch_stats": {"mean": np.float64([1.5, -0.0, np.inf]), "n": np.int32(7)},
    }


@pytest.mark.parametrize("coder", ["best", *CODERS])
def test_a_network_comes_back_bit_for_bit(coder):
    tree = variables()
    tree["params"]["shared cores"] = jax.tree.map(
        lambda core: Shared(centroids=jnp.ones(2), codes=jnp.ones(core.shape, jnp.uint8)),
        tree["params"]["cores"],
    )
    data = pack(tree, architecture={"a": 1}, network={"name": "mlp"}, coder=coder)
    found = unpack(data)
    assert same(found.variables, tree)
    assert (found.architecture, found.network) == ({"a": 1}, {"name": "mlp"})
    assert found.records["params/cores/in"]["shape"] == [13, 3]
    parts = sum(n for record in found.records.values() for _, _, n in record["parts"])
    assert parts + found.overhead == len(data)


def test_same_tells_the_smallest_difference():
    one, other = {"a": np.float32([0.0, 1.0])}, {"a": np.float32([-0.0, 1.0])}
    assert same(one, {"a": np.float32([0.0, 1.0])})
    assert not same(one, other)
    assert not same(one, {"a": np.float64([0.0, 1.0])})


def test_sparse_is_near_the_entropy():
    g = np.random.default_rng(1)
    codes = (g.integers(1, 17, 100_000) * (g.random(100_000) < 0.08)).astype(np.uint8)
    data = pack({"k": Shared(centroids=jnp.ones(16), codes=jnp.asarray(codes))}, coder="ans")
    assert len(data) - unpack(data).overhead - 16 * 4 < 1.01 * entropy_bits(codes) / 8


def forged(data: bytes) -> bytes:
    """With a checksum that is right."""
    return data[: -container.DIGEST] + hashlib.sha256(data[: -container.DIGEST]).digest()


def is_refused(data: bytes) -> bool:
    """With the one error there is; otherwise it must be a network that can be read."""
    try:
        found = unpack(data, most_bytes=1 << 20)
    except ContainerError:
        return True
    jax.tree.map(np.asarray, found.variables)
    return False


def test_damage_is_refused():
    data = pack(variables())
    g = np.random.default_rng(2)
    for _ in range(300):
        k = int(g.integers(len(data)))
        flipped = bytearray(data)
        flipped[k] ^= 1 << int(g.integers(8))
        assert is_refused(bytes(flipped))
        assert is_refused(data[:k])


def test_forged_files_give_one_error_or_a_network():
    """Bit flips with the checksum made right again, in the parts and in the header itself."""
    g = np.random.default_rng(3)
    refused = 0
    data = pack(variables())
    length = container.HEAD.unpack_from(data)[2]
    start = container.HEAD.size
    text = zlib.decompress(data[start : start + length])
    for i in range(400):
        if i % 2:
            flipped = bytearray(data)
            flipped[int(g.integers(start + length, len(data)))] ^= 1 << int(g.integers(8))
            made = bytes(flipped)
        else:
            changed = bytearray(text)
            changed[int(g.integers(len(text)))] = int(g.integers(32, 127))
            packed = zlib.compress(bytes(changed))
            head = container.HEAD.pack(container.MAGIC, container.VERSION, len(packed))
            made = head + packed + data[start + length :]
        refused += is_refused(forged(made))
    assert refused > 100


def header_of(text: bytes) -> bytes:
    packed = zlib.compress(text)
    body = container.HEAD.pack(container.MAGIC, container.VERSION, len(packed)) + packed
    return forged(body + bytes(container.DIGEST))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "does not begin with"),
        (b"PK\3\4" + bytes(60), "does not begin with"),
        (forged(struct.pack("<8sHI", container.MAGIC, 9, 0) + bytes(32)), "version 9"),
        (header_of(b"{"), "header is broken"),
        (header_of(b"[" * 100_000), "header is broken"),
        (header_of(b'{"tree":' + b'{"names":{"a":' * 3000 + b"0" + b"}}" * 3000 + b"}"), "broken"),
        (header_of(b" " * (container.HEADER_BYTES + 10)), "more than"),
        (header_of(b'{"tree":{"names":{"a":0}},"leaves":[]}'), "a is leaf 0 of 0"),
        (
            header_of(
                b'{"tree":{"names":{"a":0}},"leaves":[{"kind":"shared","dtype":"float32",'
                b'"shape":[1099511627776,1099511627776],"code_dtype":"uint8",'
                b'"parts":[["raw",0,0],["plain",0,0]]}]}'
            ),
            "most_bytes",
        ),
    ],
)
def test_hostile_files_say_what_is_wrong(data, message):
    with pytest.raises(ContainerError, match=message):
        unpack(data)


def test_a_file_is_named_in_its_error(tmp_path):
    path = tmp_path / "net.morph"
    assert save(path, variables()) == path.stat().st_size
    assert same(load(path).variables, variables())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ContainerError, match=r"net\.morph: its checksum is wrong"):
        load(path)
