"""Leaves without a place in a file."""

import ml_dtypes
import numpy as np
import pytest

from morph.compress.coding.container import pack, same, unpack


def test_leaves_without_a_place_in_a_file():
    with pytest.raises(TypeError, match="complex64 cannot be stored"):
        pack({"a": np.zeros(3, np.complex64)})
    assert same(
        unpack(pack({"a": np.zeros(2, ml_dtypes.bfloat16)})).variables,
        {"a": np.zeros(2, ml_dtypes.bfloat16)},
    )
