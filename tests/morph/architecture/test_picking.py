"""What is taken lies where the array lay, and shares no memory with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from eight_devices import report_of

from morph.architecture.picking import Pick, picked


@pytest.fixture(scope="module")
def run():
    """The report of `sharded_run.py`."""
    return report_of("sharded_run.py")


@pytest.mark.parametrize("mesh", ["auto", "explicit"])
def test_arrays_stay_divided(run, mesh):
    found = run[mesh]  # the program compares shardings and values leaf by leaf
    assert found["widths"] == {"a": 16, "b": 16}
    for piece in ("cannot keep 'z' divided", "8 devices", "10 long", "round_to=8"):
        assert piece in found["error"]
    assert found["whole"] == {"a": [6, 16], "b": [16, 10], "shift": [16], "z": [10, 8]}


def test_fully_sharded_training_goes_on_after_shrinking(run):
    one, fsdp = run["train"]["one"], run["train"]["fsdp"]
    assert len(one["losses"]) == 12
    np.testing.assert_allclose(fsdp["losses"], one["losses"], rtol=1e-5)
    assert fsdp["kept"]
    assert one["bytes"] == [8 * n for n in fsdp["bytes"]]
    # 6 x 32, 32, 32 x 24, 24 x 8 numbers, then 6 x 16, 16, 16 x 16, 16 x 8
    assert fsdp["bytes"] == [4 * 1184 // 8, 4 * 496 // 8]


@pytest.mark.parametrize("picks", [(), (Pick(axis=1, index=np.array([0, 2])),)])
def test_a_donated_result_leaves_the_array_alone(picks):
    array = jnp.ones((3, 5))
    small = picked(array, picks, "a")
    jax.jit(lambda a: a + 1.0, donate_argnums=0)(small)
    assert small.is_deleted()
    assert not array.is_deleted()


def test_random_keys_are_copied():
    key = jax.random.key(3)
    copy = picked(key, (), "key")
    np.testing.assert_array_equal(jax.random.key_data(copy), jax.random.key_data(key))
    copy.delete()
    assert not key.is_deleted()


def test_host_arrays_and_abstract_ones():
    pick = Pick(axis=0, index=np.array([2, 0, 2]), share=np.array([2, 1, 2]))
    np.testing.assert_array_equal(
        picked(np.arange(8.0).reshape(4, 2), [pick], "a"), [[2.0, 2.5], [0.0, 1.0], [2.0, 2.5]]
    )
    struct = picked(jax.ShapeDtypeStruct((4, 2), jnp.bfloat16), [pick], "a")
    assert (struct.shape, struct.dtype) == ((3, 2), jnp.bfloat16)
