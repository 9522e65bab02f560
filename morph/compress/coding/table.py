"""What a file costs, leaf by leaf, as in tables 2 and 3 of Deep Compression (Han et al. 2016)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from morph.compress.coding.leaves import Record


@dataclass(frozen=True, kw_only=True)
class Row:
    """One leaf.

    Attributes:
        path: of the leaf.
        weights: all of them.
        kept: those that are stored, fillers of long gaps among them.
        weight_bits: of a stored weight before coding.
        coded_weight_bits: after it, on average, with the table.
        index_bits: of its position before coding; 0 where all are stored.
        coded_index_bits: after it, on average, with the table.
        size_bytes: of the leaf in the file, without its record in the header.
    """

    path: str
    weights: int
    kept: int
    weight_bits: float
    coded_weight_bits: float
    index_bits: float
    coded_index_bits: float
    size_bytes: int

    @property
    def rate(self) -> float:
        """Times smaller than 32-bit weights."""
        return 4 * self.weights / max(1, self.size_bytes)


HEAD = ("leaf", "weights", "stored", "weight bits", "coded", "index bits", "coded", "bytes", "rate")


def layer_rows(records: Mapping[str, Record]) -> Iterator[Row]:
    """A row for every leaf of `Contents.records`."""
    for path, record in records.items():
        weights, parts = math.prod(record["shape"]), record["parts"]
        index = parts[_INDEX[record["kind"]]] if "index_bits" in record else None
        values = parts[_VALUES[record["kind"]]]
        kept = values[1]
        yield Row(
            path=path,
            weights=weights,
            kept=kept,
            weight_bits=_weight_bits(record),
            coded_weight_bits=8 * values[2] / max(1, kept),
            index_bits=record.get("index_bits", 0),
            coded_index_bits=8 * index[2] / max(1, kept) if index else 0.0,
            size_bytes=sum(length for _, _, length in parts),
        )


_VALUES = {"array": 0, "fixed": 0, "shared": 1, "pruned": 2}  # which part the weights are
_INDEX = {"shared": 2, "pruned": 0}  # and their positions


def _weight_bits(record: Record) -> float:
    """Of a weight that is stored: of its number, or of its code."""
    if record["kind"] == "fixed":
        return float(record["word_length"])
    if record["kind"] == "shared":
        return float(math.ceil(math.log2(max(2, record["parts"][0][1]))))
    return 8.0 * np.dtype("u2" if record["dtype"] == "bfloat16" else record["dtype"]).itemsize


def cells(row: Row) -> Sequence[str]:
    """A row as text, in the order of `HEAD`."""
    return (
        row.path,
        f"{row.weights:,}",
        f"{row.kept / max(1, row.weights):.1%}",
        f"{row.weight_bits:g}",
        f"{row.coded_weight_bits:.2f}",
        f"{row.index_bits:g}" if row.index_bits else "",
        f"{row.coded_index_bits:.2f}" if row.index_bits else "",
        f"{row.size_bytes:,}",
        f"{row.rate:.1f}",
    )
