"""Checkpoints of all processes; `tests/morph/test_scale.py` has four of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morph.cycle import checkpoint, shards
from morph.cycle.checkpoint import Checkpoints
from morph.errors import TrainingDivergedError, WorkdirError

TREE = {
    "params": {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": jnp.ones(3, jnp.bfloat16)},
    "none": np.zeros((0, 3), np.float32),
    "flags": np.array([True, False]),
    "count": np.int32(3),
}


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    """As if no process held all."""
    monkeypatch.setattr(checkpoint, "is_divided", lambda tree: True)
    found = Checkpoints(tmp_path)
    yield found
    found.close()


def folders(tmp_path):
    return sorted(path.name for path in (tmp_path / "checkpoints").iterdir())


def damage(folder):
    """Changes a number in a checkpoint that Orbax writes again."""
    told = shards.Shards.found(folder)
    arrays = dict(told.read().arrays)
    arrays["params.w"] = arrays["params.w"].at[1, 2].set(7.0)
    facts = (folder / "facts.json").read_bytes()
    shards.write(folder.with_name("9.shards"), 9, arrays, {}, lambda odd: None)
    for name in ("facts.json", "arrays"):
        shards.shutil.rmtree(folder / name) if name == "arrays" else (folder / name).unlink()
    (folder.with_name("9.shards") / "arrays").rename(folder / "arrays")
    (folder / "facts.json").write_bytes(facts)
    shards.shutil.rmtree(folder.with_name("9.shards"))


def test_what_was_written_is_read_and_the_last_two_are_kept(checkpoints, tmp_path):
    for turn in range(3):
        checkpoints.save(TREE, {"turn": turn})
    assert folders(tmp_path) == ["2.shards", "3.shards"]
    saved = checkpoints.newest()
    assert (saved.number, saved.progress) == (3, {"turn": 2})
    for found, true in zip(jax.tree.leaves(saved.into(TREE)), jax.tree.leaves(TREE), strict=True):
        assert found.dtype == true.dtype
        np.testing.assert_array_equal(found, true)
    with pytest.raises(WorkdirError, match="another network or optimizer"):
        saved.into({**TREE, "count": np.zeros(2)})


def test_a_damaged_one_is_told_and_the_one_before_is_used(checkpoints, tmp_path, caplog):
    for turn in range(2):
        checkpoints.save(TREE, {"turn": turn})
    damage(tmp_path / "checkpoints" / "2.shards")
    assert checkpoints.newest().progress == {"turn": 0}
    assert "checkpoint 2 in" in caplog.text
    assert "checksum of params.w is wrong" in caplog.text
    (tmp_path / "checkpoints" / "1.shards" / "facts.json").unlink()
    with pytest.raises(WorkdirError, match=r"all checkpoints in .* are damaged"):
        checkpoints.newest()


def test_one_that_cannot_be_read_is_an_error_and_stays(checkpoints, tmp_path):
    checkpoints.save(TREE, {})
    arrays = tmp_path / "checkpoints" / "1.shards" / "arrays"
    arrays.rename(arrays.with_name("away"))
    with pytest.raises(WorkdirError, match=r"cannot read checkpoint 1 .*move 1.shards away"):
        checkpoints.newest()
    arrays.with_name("away").rename(arrays)
    assert checkpoints.newest().number == 1


def test_parameters_that_are_not_finite_are_not_written(checkpoints, tmp_path):
    bad = {"params": {"w": np.array([1.0, np.nan], np.float32)}}
    with pytest.raises(TrainingDivergedError, match=r"params\.w is not finite"):
        checkpoints.save(bad, {})
    assert folders(tmp_path) == []
    checkpoints.save({"params": {}, "loss": np.float32(np.inf)}, {})
    assert folders(tmp_path) == ["2.shards"]


@pytest.mark.parametrize("dtype", [bool, np.int8, jnp.bfloat16, np.float32, np.complex64])
def test_a_checksum_minds_every_number_and_its_place(dtype):
    array = np.arange(12).reshape(3, 4).astype(dtype)
    sums = [
        int(jax.jit(shards.checksum)(one))
        for one in (
            array,
            array.copy(),
            array[::-1],
            np.roll(array, 1),
            np.where(array == 0, 1, array),
        )
    ]
    assert sums[0] == sums[1]
    assert len({sums[0], *sums[2:]}) == 4
    assert not shards.is_divided({"a": jnp.asarray(array), "b": array})
