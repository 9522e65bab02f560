"""Entropy coders: small non-negative integers as bytes, with the table that decodes them.

Codes are made by bitarray (canonical Huffman) and constriction (asymmetric numeral systems, Duda
2013). What is decoded may be hostile: tables are checked before they are used.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Integer

from morph.errors import ContainerError, need
from regularizers.errors import InputError

_missing: ModuleNotFoundError | None = None
try:
    import constriction
    from bitarray import bitarray
    from bitarray.util import canonical_decode, canonical_huffman, int2ba
except ModuleNotFoundError as error:
    _missing = error

Symbols = Integer[np.ndarray, " _"]

ALPHABET = 1 << 12  # symbols are smaller
LONGEST = 31  # bits of a Huffman code, the most that bitarray decodes


class Coder(NamedTuple):
    """One way to write symbols.

    Attributes:
        encode: symbols [n] as bytes, table included; they tell everything but n.
        decode: those bytes and n as `uint16` [n]; ContainerError if they are not right.
        bits: what n symbols cost, without the table.
    """

    encode: Callable[[Symbols], bytes]
    decode: Callable[[bytes, int], Symbols]
    bits: Callable[[Symbols], float]


def check_installed() -> None:
    """Raises a MissingExtraError unless all coders are there."""
    need("A file of a compressed network", _missing, "compress")


def entropy_bits(symbols: Symbols) -> float:
    """The Shannon bound: n times the entropy of the symbols' frequencies, in bits."""
    counts = np.bincount(symbols)
    counts = counts[counts > 0]
    return float(-(counts * np.log2(counts / counts.sum())).sum())


def huffman_lengths(counts: Mapping[int, int]) -> dict[int, int]:
    """The length of every symbol's code, in bits; that of a single symbol is 1.

    Raises:
        ValueError: if there is none.

    Example:
        >>> lengths = huffman_lengths({0: 999, 1: 1})
        >>> sum(lengths[s] * n for s, n in {0: 999, 1: 1}.items())
        1000
    """
    need("Huffman coding", _missing, "compress")
    if not counts:
        raise InputError("a Huffman code needs at least one symbol, found none")
    codes, _, _ = canonical_huffman(dict(counts))
    return {symbol: len(code) for symbol, code in codes.items()}


def _counts(symbols: Symbols) -> dict[int, int]:
    if len(symbols) and not 0 <= symbols.min() <= symbols.max() < ALPHABET:
        raise InputError(
            f"symbols must be 0 to {ALPHABET - 1}, found {symbols.min()} to {symbols.max()}"
        )
    counts = np.bincount(symbols)
    return {int(symbol): int(counts[symbol]) for symbol in np.flatnonzero(counts)}


def _huffman_bits(symbols: Symbols) -> float:
    counts = _counts(symbols)
    lengths = huffman_lengths(counts)
    return float(sum(lengths[symbol] * n for symbol, n in counts.items()))


def _canonical(lengths: Mapping[int, int]) -> dict[int, Any]:
    """The codes that follow from their lengths alone: in order of length, then of symbol."""
    codes: dict[int, Any] = {}
    code = before = 0
    for symbol in sorted(lengths, key=lambda symbol: (lengths[symbol], symbol)):
        code <<= lengths[symbol] - before
        before = lengths[symbol]
        codes[symbol] = int2ba(code, before)
        code += 1
    return codes


def _encode_huffman(symbols: Symbols) -> bytes:
    """The size of the alphabet, the lengths of the codes in 5 bits each, and the codes."""
    codes = _canonical(huffman_lengths(_counts(symbols)))
    size = max(codes) + 1
    bits = bitarray(endian="big")
    for symbol in range(size):
        bits.extend(f"{len(codes.get(symbol, '')):05b}")
    bits.encode(codes, symbols.tolist())
    return struct.pack("<H", size - 1) + bits.tobytes()


def _decode_huffman(data: bytes, n: int) -> Symbols:
    need("Huffman coding", _missing, "compress")
    if len(data) < 2:
        raise ContainerError("a Huffman table is cut off")
    size = struct.unpack_from("<H", data)[0] + 1
    bits = bitarray(endian="big")
    bits.frombytes(data[2:])
    if len(bits) < 5 * size + n:  # every code has at least a bit
        raise ContainerError(f"{len(data)} bytes cannot hold {n} symbols of {size} kinds")
    table = np.frombuffer(bits[: 5 * size].unpack(), np.uint8).reshape(size, 5)
    lengths = table @ (1 << np.arange(4, -1, -1))
    # canonical: by length, then by symbol
    counts = np.bincount(lengths, minlength=LONGEST + 1)
    counts[0] = 0
    order = np.lexsort((np.arange(size), lengths))
    order = order[lengths[order] > 0]
    if not len(order) or (counts * 2.0 ** -np.arange(len(counts))).sum() > 1:
        raise ContainerError("a Huffman table has more codes than its lengths allow, or none")
    decoded = canonical_decode(bits[5 * size :], counts.tolist(), order.tolist())
    try:
        found = np.fromiter(decoded, np.uint16, n)
    except ValueError as error:
        raise ContainerError(f"Huffman codes end before {n} symbols: {error}") from error
    return found


PRECISION = 16  # bits of a count in an ANS table: counts are scaled where they are larger


def _model(counts: Symbols) -> Any:
    probabilities = counts / counts.sum()
    return constriction.stream.model.Categorical(probabilities, lazy=False, perfect=False)


def _scaled(symbols: Symbols) -> Symbols:
    """Counts of all symbols up to the largest, in 16 bits; those that occur stay above zero."""
    counts = np.bincount(symbols)
    most = (1 << PRECISION) - 1
    if counts.max() <= most:
        return counts
    return np.where(counts > 0, np.maximum(1, counts * most // counts.max()), 0)


def _encode_ans(symbols: Symbols) -> bytes:
    """The kinds of symbols that occur, in a bit each, their counts, and the words of the code."""
    need("ANS coding", _missing, "compress")
    _counts(symbols)  # that they are in the alphabet
    counts = _scaled(symbols)
    used = np.flatnonzero(counts)
    wide = int(counts.max() > 255)
    table = struct.pack("<HB", len(counts) - 1, wide)
    table += np.packbits(counts > 0).tobytes()
    table += counts[used].astype("<u2" if wide else "u1").tobytes()
    if len(used) == 1:
        return table
    ranks = np.searchsorted(used, symbols).astype(np.int32)
    coder = constriction.stream.stack.AnsCoder()
    coder.encode_reverse(ranks, _model(counts[used]))
    return table + coder.get_compressed().astype("<u4").tobytes()


def _decode_ans(data: bytes, n: int) -> Symbols:
    need("ANS coding", _missing, "compress")
    if len(data) < 3:
        raise ContainerError("an ANS table is cut off")
    last, wide = struct.unpack_from("<HB", data)
    size = last + 1
    start = 3 + (size + 7) // 8
    used = np.flatnonzero(np.unpackbits(np.frombuffer(data[3:start], np.uint8))[:size])
    type_ = np.dtype("<u2" if wide else "u1")
    end = start + len(used) * type_.itemsize
    if wide > 1 or not len(used) or len(data) < end or (len(data) - end) % 4:
        raise ContainerError("an ANS table is cut off or empty")
    counts = np.frombuffer(data[start:end], type_).astype(np.int64)
    words = np.frombuffer(data[end:], "<u4").astype(np.uint32)
    if not counts.all():
        raise ContainerError("an ANS table counts a symbol that does not occur")
    if len(used) == 1:
        if len(words):
            raise ContainerError("codes follow an ANS table of one symbol")
        return np.full(n, used[0], np.uint16)
    try:
        coder = constriction.stream.stack.AnsCoder(words)
    except ValueError as error:
        raise ContainerError(f"ANS codes are broken: {error}") from error
    ranks = coder.decode(_model(counts), n)
    if not coder.is_empty():
        raise ContainerError(f"ANS codes hold something else than {n} symbols")
    return used[ranks].astype(np.uint16)


def _encode_plain(symbols: Symbols) -> bytes:
    """One byte each, or two."""
    most = int(symbols.max(initial=0))
    if most > 65535 or symbols.min(initial=0) < 0:
        raise InputError(f"symbols must be 0 to 65535, found {symbols.min()} to {most}")
    wide = int(most > 255)
    return bytes([wide]) + symbols.astype("<u2" if wide else "u1").tobytes()


def _decode_plain(data: bytes, n: int) -> Symbols:
    type_ = np.dtype("<u2" if data[:1] == b"\1" else "u1")
    if data[:1] not in (b"\0", b"\1") or len(data) != 1 + n * type_.itemsize:
        raise ContainerError(f"{len(data)} bytes are not {n} symbols")
    return np.frombuffer(data, type_, offset=1).astype(np.uint16)


CODERS: Mapping[str, Coder] = {
    "huffman": Coder(_encode_huffman, _decode_huffman, _huffman_bits),
    "ans": Coder(_encode_ans, _decode_ans, entropy_bits),
    "plain": Coder(_encode_plain, _decode_plain, lambda symbols: 8.0 * len(symbols)),
}
