"""Variables are told apart by their bits; pairs that do not belong together are refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from morph.architecture.architecture import Architecture
from morph.cycle.stamp import STAMP, check_pair, stamp_of, stamped
from morph.errors import WorkdirError

ZEROS, EMPTY = np.zeros(3, np.float32), np.ones((2, 0), np.float32)
VARIABLES = {"params": {"w": ZEROS, "b": EMPTY}}
OTHERS = (
    {"params": {"w": np.asarray([0.0, 0.0, -0.0], np.float32), "b": EMPTY}},
    {"params": {"w": np.zeros(3, np.int32), "b": EMPTY}},
    {"params": {"w": np.zeros((3, 1), np.float32), "b": EMPTY}},
    {"params": {"v": ZEROS, "b": EMPTY}},
    {**VARIABLES, "state": {"t": np.float32(0)}},
)


def test_every_bit_name_shape_and_dtype_counts():
    stamp = stamp_of(VARIABLES)
    assert stamp_of({"params": {"b": EMPTY, "w": jnp.zeros(3)}}) == stamp
    assert len({stamp, *map(stamp_of, OTHERS)}) == 1 + len(OTHERS)


def test_a_pair_that_does_not_belong_together_is_refused(tmp_path):
    plain = Architecture(groups={}, variables={})
    check_pair(tmp_path / "a.json", plain, VARIABLES)  # of a version before
    architecture = stamped(plain, VARIABLES)
    assert architecture.report == {STAMP: stamp_of(VARIABLES)}
    check_pair(tmp_path / "a.json", architecture, VARIABLES)
    with pytest.raises(WorkdirError, match=r"a.json and the variables beside it are of two net"):
        check_pair(tmp_path / "a.json", architecture, OTHERS[0])
