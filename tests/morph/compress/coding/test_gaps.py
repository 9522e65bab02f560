"""Gaps between what is kept, and back."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from morph.compress.coding.gaps import from_gaps, to_gaps


@settings(max_examples=60, deadline=None)
@given(kept=st.lists(st.integers(0, 500), unique=True), bits=st.integers(1, 9))
def test_gaps_invert(kept, bits):
    positions = np.sort(np.array(kept, np.int64))
    gaps, filler = to_gaps(positions, bits)
    assert gaps.max(initial=0) < 1 << bits
    np.testing.assert_array_equal(from_gaps(gaps, 501)[~filler], positions)
