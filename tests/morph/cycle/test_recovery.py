"""A run that dies anywhere goes on as if it had not: checkpoints, torn files, full disks, locks."""

import errno
import logging
import os
import signal

import jax
import numpy as np
import pytest
from small_run import make

from morph.cycle import checkpoint
from morph.errors import Interrupted, WorkdirError


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


def contents(workdir):
    files = [path for path in workdir.rglob("*") if path.is_file() and path.name != "lock"]
    return {path: path.read_bytes() for path in files}


def broken_disk(path):
    raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))


def test_a_run_that_dies_in_every_phase_ends_as_one_that_does_not(tmp_path, caplog, monkeypatch):
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
    newest = max((workdir / "checkpoints").iterdir(), key=lambda path: int(path.stem))
    before = contents(workdir)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "read", broken_disk)
        with pytest.raises(WorkdirError, match=r"cannot read .*Input/output.*Nothing was changed"):
            run()
    assert contents(workdir) == before
    newest.write_bytes(before[newest][:-1])
    with caplog.at_level(logging.WARNING, "morph"), pytest.raises(Died):
        run(Dying("retrain", 20))
    (said,) = [r.getMessage() for r in caplog.records if r.name.startswith("morph")]
    assert f"checkpoint {newest.stem} in" in said
    assert "is damaged" in said
    again = run()

    assert again.outcomes == straight.outcomes
    assert again.architecture == straight.architecture
    jax.tree.map(np.testing.assert_array_equal, again.variables, straight.variables)
    for name in ("metrics.jsonl", "architecture.json", "shrunk.json"):
        assert (workdir / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
