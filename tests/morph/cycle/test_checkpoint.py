"""Checkpoints: torn ones are passed over, unreadable ones are an error, nothing whole is lost."""

import errno
import json
import os
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest

from morph.cycle.checkpoint import Checkpoints, Interval
from morph.errors import TrainingDivergedError, WorkdirError

TREE = {"params": {"w": np.arange(7, dtype=np.float32)}, "count": np.int32(3)}


def leave(workdir, turns):
    """Leaves checkpoints with these turns."""
    checkpoints = Checkpoints(workdir)
    for turn in turns:
        checkpoints.save(TREE, {"turn": turn})
    checkpoints.wait()
    checkpoints.close()
    return workdir


@pytest.fixture
def saved(tmp_path):
    """A directory with two checkpoints, of which the second is newer."""
    return leave(tmp_path, (1, 2))


def reopened(workdir):
    checkpoints = Checkpoints(workdir)
    try:
        return checkpoints.newest()
    finally:
        checkpoints.close()


def contents(workdir):
    return {path.name: path.read_bytes() for path in (workdir / "checkpoints").iterdir()}


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_torn_checkpoint_falls_back_to_the_one_before_and_stays(saved, caplog):
    newest = saved / "checkpoints" / "2.ckpt"
    cut(newest)
    torn = newest.read_bytes()
    checkpoints = Checkpoints(saved)
    assert checkpoints.newest().progress["turn"] == 1
    assert "checkpoint 2 in" in caplog.text
    for turn in (3, 4, 5):
        checkpoints.save(TREE, {"turn": turn})
    checkpoints.close()
    assert sorted(contents(saved)) == ["2.ckpt", "4.ckpt", "5.ckpt"]
    assert newest.read_bytes() == torn


def test_where_all_are_torn_nothing_begins_again(saved):
    for path in (saved / "checkpoints").iterdir():
        cut(path)
    before = contents(saved)
    with pytest.raises(WorkdirError, match=r"all checkpoints in .* are damaged .*choose another"):
        reopened(saved)
    assert contents(saved) == before


def test_weights_that_are_no_numbers_are_never_saved(saved, tmp_path):
    checkpoints = Checkpoints(saved)
    checkpoints.newest()
    nan = {"params": {"w": np.asarray([1.0, np.nan])}}
    with pytest.raises(TrainingDivergedError, match=r"params.w is not finite any more. Checkpoint"):
        checkpoints.save(nan, {})
    checkpoints.close()
    assert reopened(saved).number == 2
    first = Checkpoints(tmp_path)
    with pytest.raises(TrainingDivergedError, match="There is none before it"):
        first.save(nan, {})
    first.close()


def test_a_full_disk_is_one_error_and_the_last_checkpoint_stays(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = {"params": np.zeros(10_000)}
    for kept in ("There is none before it: .* begin again", "Checkpoint 2, the last .* resume"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, hard))
        try:
            checkpoints.save(noise, {})  # is written while training goes on
            with pytest.raises(WorkdirError, match=f"cannot write a checkpoint .*{kept}"):
                checkpoints.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        checkpoints.save(TREE, {})
        checkpoints.wait()
    checkpoints.close()
    assert sorted(contents(tmp_path)) == ["2.ckpt", "4.ckpt"]  # and no half of one


class Faults:
    """Fails the file operation of a number; counts them all."""

    def __init__(self, patch, root, at=0, error=errno.EIO):
        self.root, self.at, self.error, self.done = str(root), at, error, 0
        for owner, name in [
            *((Path, name) for name in ("iterdir", "mkdir", "open", "replace", "unlink")),
            (os, "open"),
            (os, "fsync"),
        ]:
            patch.setattr(owner, name, self.faulty(getattr(owner, name)))

    def faulty(self, real):
        def operation(place, *args, **kwargs):
            self.step(place)
            found = real(place, *args, **kwargs)
            return File(found, self) if hasattr(found, "fileno") else found

        return operation

    def step(self, place):
        if isinstance(place, int) or str(place).startswith(self.root):
            self.done += 1
            if self.done == self.at:
                raise OSError(self.error, os.strerror(self.error), str(place))


class File:
    """An open file whose reads and writes may fail."""

    def __init__(self, file, faults):
        self.file, self.faults = file, faults

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def __getattr__(self, name):
        if name in ("read", "write", "flush"):
            self.faults.step(self.faults.root)
        return getattr(self.file, name)


def goes_on(workdir):
    """Resumes, and saves twice; the progress that was read."""
    checkpoints = Checkpoints(workdir)
    try:
        found = checkpoints.newest()
        for _ in range(2):
            turn = found.progress["turn"] + 1
            checkpoints.save(TREE, {"turn": turn})
            checkpoints.wait()
        return found.progress["turn"]
    finally:
        checkpoints.close()


def test_no_fault_loses_what_can_be_read(saved, tmp_path_factory, monkeypatch):
    root, before = tmp_path_factory.mktemp("faults"), contents(saved)
    with monkeypatch.context() as patch:
        faults = Faults(patch, shutil.copytree(saved, root / "none"))
        assert goes_on(root / "none") == 2
    assert faults.done > 25  # times four errors: 100 faults
    for error in (errno.EIO, errno.EACCES, errno.ENOSPC, errno.EROFS):
        for at in range(1, faults.done + 1):
            workdir = shutil.copytree(saved, root / f"{error} {at}")
            with monkeypatch.context() as patch:
                Faults(patch, workdir, at, error)
                with pytest.raises(WorkdirError, match="checkpoint"):
                    goes_on(workdir)
            after = contents(workdir)
            new = [name for name in after if name.endswith(".ckpt") and name not in before]
            lost = [name for name in before if after.get(name) != before[name]]
            assert len(lost) <= len(new), (error, at)
            assert reopened(workdir).progress["turn"] >= 2, (error, at)


def test_no_damage_is_taken_for_whole_or_deleted(saved, tmp_path_factory):
    root, whole = tmp_path_factory.mktemp("damage"), contents(saved)
    one, two = whole["1.ckpt"], whole["2.ckpt"]
    torn = [two[:length] for length in range(0, len(two), 31)]
    torn += [two[:at] + bytes([two[at] ^ 1]) + two[at + 1 :] for at in range(0, len(two), 29)]
    torn += [two + b"\0", two[:-32] + one[-32:]]  # more, and with the seal of another
    for number, data in enumerate(torn):
        workdir = shutil.copytree(saved, root / str(number))
        (workdir / "checkpoints" / "2.ckpt").write_bytes(data)
        assert goes_on(workdir) == 1
        assert contents(workdir)["2.ckpt"] == data
    swapped = shutil.copytree(saved, root / "swapped")
    for name, data in (("1.ckpt", two), ("2.ckpt", one)):
        (swapped / "checkpoints" / name).write_bytes(data)
    with pytest.raises(WorkdirError, match=r"2.ckpt holds checkpoint 1; rename it. Nothing was"):
        goes_on(swapped)
    missing = shutil.copytree(saved, root / "missing")
    (missing / "checkpoints" / "2.ckpt").unlink()
    assert goes_on(missing) == 1
    for text in ("5", json.dumps({"1": {}, "2": {"arrays": 0}})):  # seals, as versions before had
        (missing / "checkpoints.json").write_text(text)
        assert goes_on(missing) > 1


def test_a_checkpoint_is_due_by_steps_or_by_time():
    by_steps = Interval(seconds=None, steps=20)
    by_steps.begin(10)
    assert [step for step in range(10, 60, 10) if by_steps.due(step)] == [30, 40, 50]
    assert not Interval(seconds=1e6, steps=None).due(10**9)
    assert Interval(seconds=0.0, steps=None).due(1)
