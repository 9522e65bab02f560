"""A run that dies anywhere goes on as if it had not: checkpoints, torn files, full disks, locks."""

import errno
import json
import logging
import os
import resource
import shutil
import signal

import jax
import numpy as np
import pytest
from small_run import compiled_once, make

from morph import files
from morph.cycle.checkpoint import Checkpoints, Interval
from morph.cycle.progress import drop_records
from morph.cycle.workdir import load_variables, locked, save_variables
from morph.errors import Interrupted, TrainingDivergedError, WorkdirError


class Died(BaseException):
    """What a killed process would not even raise."""


class Dying:
    """A listener with which a run dies, or is asked to stop, at a step of a phase."""

    def __init__(self, phase, step, die=True):
        self.at, self.now, self.die = (phase, step), "", die

    def seed(self, widths):
        pass

    def phase(self, name, total_steps):
        self.now = name
        self.update(0, loss=None)

    def update(self, step, **metrics):
        if (self.now, step) == self.at and "loss" in metrics:
            if self.die:
                raise Died
            os.kill(os.getpid(), signal.SIGTERM)


def tear(directory):
    """Cuts off the half of a file that holds arrays."""
    data = max((p for p in directory.rglob("d/*") if p.is_file()), key=lambda p: p.stat().st_size)
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])


@pytest.fixture
def programs(tmp_path_factory):
    """Runs compile what no run before has."""
    with compiled_once(tmp_path_factory.mktemp("programs")):
        yield


@pytest.mark.usefixtures("programs")
def test_a_run_that_dies_in_every_phase_ends_as_one_that_does_not(tmp_path, caplog):
    straight = make(tmp_path / "straight").run()
    workdir = tmp_path / "dying"

    def run(listener=None):
        cycle = make(workdir)
        cycle.checkpoint_steps = 10
        if listener is not None:
            cycle.listener = listener
        return cycle.run()

    with pytest.raises(Died):
        run(Dying("seed", 20))
    with pytest.raises(Interrupted, match="stopped at step 0 of phase 'shrink'"):
        run(Dying("shrink", 0, die=False))
    with pytest.raises(Died):
        run(Dying("shrink", 30))
    newest = max((workdir / "checkpoints").iterdir(), key=lambda path: int(path.name))
    tear(newest)
    with caplog.at_level(logging.WARNING, "morph"), pytest.raises(Died):
        run(Dying("retrain", 20))
    (said,) = [r.getMessage() for r in caplog.records if r.name.startswith("morph")]
    assert f"checkpoint {newest.name} in" in said
    assert "is torn" in said
    again = run()

    assert again.outcomes == straight.outcomes
    assert again.architecture == straight.architecture
    jax.tree.map(np.testing.assert_array_equal, again.variables, straight.variables)
    for name in ("metrics.jsonl", "architecture.json", "shrunk.json"):
        assert (workdir / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


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


def test_a_file_is_the_old_one_or_the_new_one(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    files.write_text(path, "old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_text(path, "new")
    assert path.read_text() == "old"


def test_two_runs_in_one_directory_are_refused_and_a_dead_one_is_no_obstacle(tmp_path):
    (tmp_path / "lock").write_text("process 1 on another.host\n")  # died, and left the file
    with (
        locked(tmp_path),
        pytest.raises(WorkdirError, match=rf"another run is using .* process {os.getpid()} on"),
    ):
        make(tmp_path).run()
    with locked(tmp_path):
        pass


def test_variables_are_replaced_whole(tmp_path):
    for value in (1.0, 2.0):
        save_variables(tmp_path / "v", {"params": {"w": np.full(3, value)}})
    assert float(load_variables(tmp_path / "v")["params"]["w"][0]) == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


def test_a_checkpoint_is_due_by_steps_or_by_time():
    by_steps = Interval(seconds=None, steps=20)
    by_steps.begin(10)
    assert [step for step in range(10, 60, 10) if by_steps.due(step)] == [30, 40, 50]
    assert not Interval(seconds=1e6, steps=None).due(10**9)
    assert Interval(seconds=0.0, steps=None).due(1)


def test_records_after_the_checkpoint_and_a_cut_off_line_are_forgotten(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"phase_index": i, "step": s}) for i in (0, 1) for s in (10, 20)]
    path.write_text("\n".join(lines) + '\n{"phase_index": 1, "st')
    drop_records(path, 1, 10)
    assert path.read_text().splitlines() == lines[:3]
