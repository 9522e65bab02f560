"""How large ranks may be, and factors that do not fit."""

import pytest

from morph.kernels.formats import FORMATS, max_ranks, tt


@pytest.mark.parametrize(
    ("kind", "shape", "roles", "ranks"),
    [
        ("svd", (3, 3, 8, 12), "ssio", {"r": 12}),
        ("svd", (6, 2, 5), "ioo", {"r": 6}),
        ("tucker2", (3, 3, 8, 200), "ssio", {"r_in": 8, "r_out": 72}),
        ("tucker", (3, 8, 50), "sio", {"r_s0": 3, "r_i0": 8, "r_o0": 24}),
        ("cp", (3, 8, 50), "sio", {"r": 24}),
        ("tt", (3, 3, 16, 16), "ssio", {"r1": 9, "r2": 36, "r3": 16, "r4": 4}),
    ],
)
def test_largest_ranks(kind, shape, roles, ranks):
    format, sizes = FORMATS[kind](shape, roles)
    assert max_ranks(format, sizes) == ranks
    assert format.shape(sizes) == shape


def test_factors_that_do_not_fit():
    with pytest.raises(ValueError, match=r"do not multiply to the shape \[8, 9\]"):
        tt((8, 9), "io", factors=[(2, 4), (2, 4)])
    with pytest.raises(ValueError, match="found 3 and 2"):
        tt((8, 9), "io", factors=[(2, 2, 2), (3, 3)])
    with pytest.raises(ValueError, match="at least one core, asked for 0"):
        tt((8, 9), "io", cores=0)
