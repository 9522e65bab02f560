"""Checkpoints: every bit comes back, torn ones are passed over, none is due too early."""

import resource
import shutil

import jax
import numpy as np
import pytest

from morph.cycle.checkpoint import Checkpoints, Interval
from morph.errors import TrainingDivergedError, WorkdirError


def tear(directory):
    """Cuts off the half of a file that holds arrays."""
    data = max((p for p in directory.rglob("d/*") if p.is_file()), key=lambda p: p.stat().st_size)
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])


TREE = {
    "params": {"a/b": np.arange(40_000, dtype=np.float32), "c": np.zeros((0, 3), np.float32)},
    "opt_state": (np.int32(7), {"x.y": np.asarray([-0.0, np.inf], np.float16)}),
}


@pytest.fixture
def saved(tmp_path):
    """A directory with two checkpoints, of which the second is newer."""
    checkpoints = Checkpoints(tmp_path)
    for turn in (1, 2):
        checkpoints.save(TREE, {"turn": turn, "strength": 0.1})
    checkpoints.close()
    return tmp_path


def reopened(workdir):
    checkpoints = Checkpoints(workdir)
    found = checkpoints.newest()
    checkpoints.close()
    return found


def test_a_checkpoint_gives_back_every_bit(saved):
    found = reopened(saved)
    assert found.progress == {"turn": 2, "strength": 0.1}
    same = jax.tree.map(lambda a, b: a.tobytes() == b.tobytes(), found.into(TREE), TREE)
    assert all(jax.tree.leaves(same))
    other = {**TREE, "params": {"a/b": np.zeros(5), "c": np.zeros((0, 3))}}
    with pytest.raises(WorkdirError, match=r"params.a/b has shape \(40000,\) there, \(5,\) asked"):
        found.into(other)


@pytest.mark.parametrize("how", ["cut", "missing", "changed"])
def test_a_torn_checkpoint_falls_back_to_the_one_before(saved, how):
    newest = saved / "checkpoints" / "2"
    if how == "cut":
        tear(newest)
    elif how == "missing":
        shutil.rmtree(newest / "arrays")
    else:
        facts = newest / "facts" / "metadata"
        facts.write_text(facts.read_text().replace("0.1", "0.2"))
    assert reopened(saved).progress["turn"] == 1
    tear(saved / "checkpoints" / "1")
    assert reopened(saved) is None


def test_weights_that_are_no_numbers_are_never_saved(saved):
    checkpoints = Checkpoints(saved)
    with pytest.raises(TrainingDivergedError, match=r"params.w is not finite any more"):
        checkpoints.save({"params": {"w": np.asarray([1.0, np.nan])}}, {})
    checkpoints.close()
    assert reopened(saved).number == 2


def test_a_full_disk_is_one_error_and_the_last_checkpoint_stays(saved):
    checkpoints = Checkpoints(saved)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(0).normal(size=100_000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        checkpoints.save({"params": noise}, {})  # is written while training goes on
        with pytest.raises(WorkdirError, match=r"cannot write a checkpoint .* kept: make room"):
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    checkpoints.close()
    assert reopened(saved).number == 2


def test_a_checkpoint_is_due_by_steps_or_by_time():
    by_steps = Interval(seconds=None, steps=20)
    by_steps.begin(10)
    assert [step for step in range(10, 60, 10) if by_steps.due(step)] == [30, 40, 50]
    assert not Interval(seconds=1e6, steps=None).due(10**9)
    assert Interval(seconds=0.0, steps=None).due(1)
