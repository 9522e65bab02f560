"""Entropy coders, against oracles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morph.compress.coding.symbols import CODERS, huffman_lengths


def test_huffman_oracles():
    counts = dict(zip("abcdef", (45, 13, 12, 16, 9, 5), strict=True))
    assert sum(huffman_lengths(counts)[symbol] * n for symbol, n in counts.items()) == 224
    assert huffman_lengths({7: 3}) == {7: 1}
    assert CODERS["huffman"].bits(np.repeat([0, 1], [999, 1])) == 1000
    with pytest.raises(ValueError, match="at least one symbol, found none"):
        huffman_lengths({})


@settings(max_examples=60, deadline=None)
@given(
    symbols=st.lists(st.integers(0, 300), min_size=1, max_size=400),
    coder=st.sampled_from(list(CODERS)),
)
def test_coders_invert(symbols, coder):
    symbols = np.array(symbols)
    coded = CODERS[coder].encode(symbols)
    np.testing.assert_array_equal(CODERS[coder].decode(coded, len(symbols)), symbols)
