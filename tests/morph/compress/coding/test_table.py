"""What a file costs, leaf by leaf, by hand."""

import pytest

from morph.compress.coding.table import HEAD, cells, layer_rows

# Parts are (coder, how many numbers, how many bytes).
RECORDS = {
    "norm": {"kind": "array", "dtype": "bfloat16", "shape": [7], "parts": [["raw", 7, 14]]},
    "fixed": {
        "kind": "fixed", "dtype": "float32", "word_length": 5, "shape": [3, 5],
        "parts": [["huffman", 15, 6]],
    },
    "shared": {
        "kind": "shared", "dtype": "float32", "shape": [10, 20], "index_bits": 4,
        "parts": [["raw", 9, 36], ["ans", 40, 15], ["huffman", 40, 10]],
    },
    "pruned": {
        "kind": "pruned", "dtype": "float32", "shape": [0, 3], "index_bits": 4,
        "parts": [["raw", 0, 0], ["raw", 0, 0], ["raw", 0, 0]],
    },
}  # fmt: skip


def test_rows_by_hand():
    norm, fixed, shared, pruned = layer_rows(RECORDS)
    assert (norm.weights, norm.kept, norm.weight_bits, norm.index_bits) == (7, 7, 16.0, 0)
    assert norm.rate == pytest.approx(4 * 7 / 14)
    assert (fixed.weight_bits, fixed.coded_weight_bits) == (5.0, 8 * 6 / 15)
    # 9 centroids take codes of 4 bits; 15 bytes for the codes, 10 for the positions of 40 weights.
    assert (shared.weights, shared.kept, shared.weight_bits) == (200, 40, 4.0)
    assert (shared.coded_weight_bits, shared.coded_index_bits) == (8 * 15 / 40, 8 * 10 / 40)
    assert (shared.size_bytes, shared.rate) == (61, pytest.approx(4 * 200 / 61))
    assert (pruned.weights, pruned.coded_weight_bits, pruned.rate) == (0, 0.0, 0.0)


def test_cells_are_those_of_the_head():
    norm, _, shared, _ = map(cells, layer_rows(RECORDS))
    assert norm == ("norm", "7", "100.0%", "16", "16.00", "", "", "14", "2.0")
    assert shared == ("shared", "200", "20.0%", "4", "3.00", "4", "2.00", "61", "13.1")
    assert len(norm) == len(HEAD)
