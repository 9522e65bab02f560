"""One leaf of a network's variables as bytes, and back: an array or a compressed kernel.

A leaf is a record (JSON) and parts (bytes). A record tells the kind, the shape and the type, and
for every part its coder, how many symbols it holds, and its length in bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from morph.compress.coding.gaps import WIDEST, from_gaps, to_gaps
from morph.compress.coding.symbols import ALPHABET, CODERS, Symbols, entropy_bits
from morph.compress.fixed_point import FixedPointCodes, Precision
from morph.errors import ContainerError
from morph.kernels.compressed import Pruned, Shared
from regularizers.checks import shown
from regularizers.errors import InputTypeError

RAW = "raw"  # the coder of numbers: little-endian
BEST = "best"  # whichever coder makes the part smallest
DTYPES = (
    *("float32", "float64", "float16", "bfloat16", "bool"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)

Record = dict[str, Any]


class Part(NamedTuple):
    """Some bytes of a leaf.

    Attributes:
        coder: `raw`, or one of `CODERS`.
        symbols: how many it holds; or numbers.
        data: the bytes.
        entropy: of the symbols, in bits; of numbers, their bits.
    """

    coder: str
    symbols: int
    data: bytes
    entropy: float


def _raw(array: Any) -> Part:
    array = np.asarray(array)
    data = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return Part(RAW, array.size, data, 8.0 * len(data))


def _coded(symbols: Symbols, coder: str) -> Part:
    if not len(symbols):
        return Part("plain", 0, b"\0", 0.0)
    if symbols.max() >= ALPHABET:  # too many kinds to pay for a table of them
        coder = "plain"
    names = list(CODERS) if coder == BEST else [coder]
    made = [Part(name, len(symbols), CODERS[name].encode(symbols), 0.0) for name in names]
    return min(made, key=lambda part: len(part.data))._replace(entropy=entropy_bits(symbols))


def _sparse(positions: Any, coder: str) -> tuple[int, Any, Part]:
    """Gaps of as many bits as cost least: these, which gaps end at fillers, and all gaps coded."""
    made = []
    for bits in range(1, WIDEST + 1):
        gaps, filler = to_gaps(positions, bits)
        cost = entropy_bits(gaps) + bits if len(gaps) else 0.0  # by their entropy: coding is slow
        fillers = 4.0 * filler.sum()  # about what the code of one costs
        table = 8.0 * min(1 << bits, int(gaps.max(initial=0)) + 1)
        made.append((cost + fillers + table, bits, gaps, filler))
    _, bits, gaps, filler = min(made, key=lambda one: one[0])
    return bits, filler, _coded(gaps, coder)


def encode(leaf: Any, coder: str = BEST) -> tuple[Record, list[Part]]:
    """A leaf's record and parts.

    Args:
        leaf: an array, or a `Pruned`, `Shared` or `FixedPointCodes` kernel.
        coder: one of `CODERS`, or `best`.

    Raises:
        TypeError: if the leaf is something else, or of a type that has no place in a file.
    """
    if not (hasattr(leaf, "dtype") and hasattr(leaf, "shape")):
        raise InputTypeError(f"leaves are arrays or compressed kernels, found {shown(leaf)}")
    kind = next((name for name, (type_, *_) in KINDS.items() if isinstance(leaf, type_)), "array")
    own, parts = KINDS[kind][1](leaf, coder)
    dtype = str(np.dtype(leaf.dtype))
    if dtype not in DTYPES:
        raise InputTypeError(
            f"leaves of {dtype} cannot be stored; possible are {', '.join(DTYPES)}"
        )
    record = {"kind": kind, "dtype": dtype, "shape": list(np.shape(leaf) or leaf.shape), **own}
    record["parts"] = [[part.coder, part.symbols, len(part.data)] for part in parts]
    return record, parts


def decode(record: Record, data: bytes) -> Any:
    """The leaf that a record and its bytes tell, bit for bit.

    Raises:
        ContainerError: if they do not belong together.
    """
    lengths = [length for _, _, length in record["parts"]]
    ends = np.cumsum(lengths)
    if len(data) != ends[-1]:
        raise ContainerError(f"a leaf has {len(data)} bytes, its record says {ends[-1]}")
    cut = [data[end - length : end] for end, length in zip(ends, lengths, strict=True)]
    parts = [(coder, n, part) for (coder, n, _), part in zip(record["parts"], cut, strict=True)]
    return KINDS[record["kind"]][2](record, parts)


def _numbers(part: tuple[str, int, bytes], dtype: str, count: int) -> np.ndarray:
    coder, n, data = part
    type_ = np.dtype(jnp.dtype(dtype))
    if coder != RAW or n != count or len(data) != n * type_.itemsize:
        raise ContainerError(f"{len(data)} bytes of {coder} are not {count} numbers of {dtype}")
    return np.frombuffer(data, type_.newbyteorder("<")).astype(type_)


def _symbols(part: tuple[str, int, bytes], most: int) -> Symbols:
    coder, n, data = part
    if coder not in CODERS or n > most:
        raise ContainerError(f"{n} symbols by {coder!r} where at most {most} belong")
    return CODERS[coder].decode(data, n) if n else np.zeros(0, np.uint16)


def _size(record: Record) -> int:
    return math.prod(record["shape"])


def _encode_array(leaf: Any, coder: str) -> tuple[Record, list[Part]]:
    del coder
    return {}, [_raw(leaf)]


def _decode_array(record: Record, parts: Sequence[Any]) -> Any:
    return _numbers(parts[0], record["dtype"], _size(record)).reshape(record["shape"])


def _encode_pruned(leaf: Pruned, coder: str) -> tuple[Record, list[Part]]:
    kept = np.asarray(leaf.kept).ravel()
    bits, filler, gaps = _sparse(np.flatnonzero(kept), coder)
    numbers = np.asarray(leaf.kernel).ravel()[kept]
    return {"index_bits": bits}, [gaps, _raw(np.packbits(filler)), _raw(numbers)]


def _decode_pruned(record: Record, parts: Sequence[Any]) -> Any:
    size = _size(record)
    positions = from_gaps(_symbols(parts[0], size), size)
    filler = _numbers(parts[1], "uint8", (len(positions) + 7) // 8)
    positions = positions[np.unpackbits(filler)[: len(positions)] == 0]
    kernel = np.zeros(size, jnp.dtype(record["dtype"]))
    kernel[positions] = _numbers(parts[2], record["dtype"], len(positions))
    kept = np.zeros(size, bool)
    kept[positions] = True
    shape = record["shape"]
    return Pruned(kernel=kernel.reshape(shape), kept=kept.reshape(shape))


def _encode_shared(leaf: Shared, coder: str) -> tuple[Record, list[Part]]:
    codes, centroids = np.asarray(leaf.codes), _raw(leaf.centroids)
    flat = codes.ravel()
    own: Record = {"code_dtype": str(codes.dtype)}
    dense = [centroids, _coded(flat, coder)]
    positions = np.flatnonzero(flat)
    bits, filler, gaps = _sparse(positions, coder)
    stored = np.zeros(len(filler), flat.dtype)
    stored[~filler] = flat[positions]
    sparse = [centroids, _coded(stored, coder), gaps]
    if _bytes(sparse) <= _bytes(dense):
        return {**own, "index_bits": bits}, sparse
    return own, dense


def _bytes(parts: Sequence[Part]) -> int:
    return sum(len(part.data) for part in parts)


def _decode_shared(record: Record, parts: Sequence[Any]) -> Any:
    size, type_ = _size(record), np.dtype(record["code_dtype"])
    if type_ not in (np.uint8, np.uint16):
        raise ContainerError(f"codes of {type_} in a kernel of shared weights")
    centroids = _numbers(parts[0], record["dtype"], parts[0][1])
    stored = _symbols(parts[1], size)
    if len(stored) and stored.max() > len(centroids):
        raise ContainerError(f"code {stored.max()} of {len(centroids)} shared weights")
    if "index_bits" in record:
        gaps = _symbols(parts[2], size)
        if len(gaps) != len(stored):
            raise ContainerError(f"{len(stored)} codes at {len(gaps)} positions")
        codes = np.zeros(size, type_)
        codes[from_gaps(gaps, size)] = stored
    elif len(stored) == size:
        codes = stored.astype(type_)
    else:
        raise ContainerError(f"{len(stored)} codes for {size} weights")
    return Shared(centroids=centroids, codes=codes.reshape(record["shape"]))


def _encode_fixed(leaf: FixedPointCodes, coder: str) -> tuple[Record, list[Part]]:
    word = leaf.precision.word_length
    symbols = (np.asarray(leaf.codes).astype(np.int64) + (1 << (word - 1))).ravel()
    own = {"word_length": word, "fractional_length": leaf.precision.fractional_length}
    return own, [_coded(symbols, coder)]


def _decode_fixed(record: Record, parts: Sequence[Any]) -> Any:
    word, size = record["word_length"], _size(record)
    symbols = _symbols(parts[0], size)
    if len(symbols) != size or (size and symbols.max() >= 1 << word):
        raise ContainerError(f"{len(symbols)} symbols for {size} weights of {word} bits")
    precision = Precision(word_length=word, fractional_length=record["fractional_length"])
    codes = (symbols.astype(np.int32) - (1 << (word - 1))).astype(precision.integer)
    return FixedPointCodes(
        codes=codes.reshape(record["shape"]), precision=precision, written_as=record["dtype"]
    )


KINDS: Mapping[str, tuple[type, Callable[..., Any], Callable[..., Any]]] = {
    "pruned": (Pruned, _encode_pruned, _decode_pruned),
    "shared": (Shared, _encode_shared, _decode_shared),
    "fixed": (FixedPointCodes, _encode_fixed, _decode_fixed),
    "array": (object, _encode_array, _decode_array),
}
