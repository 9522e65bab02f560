"""Commands as jobs: all run to their end, and one that fails says why."""

import sys

import pytest

from experiments import jobs
from morph.errors import ConfigError

FAILS = "import sys; print('error: no room', file=sys.stderr); exit(2)"


def test_what_slurm_is_asked_for():
    found = jobs.parameters_of("partition=gpu,time=60")
    assert found == {"partition": "gpu", "time": 60}
    with pytest.raises(ConfigError, match="--slurm: 'gpu' is not NAME=VALUE"):
        jobs.parameters_of("gpu")


def test_a_job_that_fails_keeps_no_other_from_its_end(tmp_path):
    pytest.importorskip("submitit")
    commands = {
        "a": [sys.executable, "-c", FAILS],
        "b": [sys.executable, "-c", "import os; open(os.environ['HERE'], 'w')"],
        "c": [sys.executable, "-c", "1 / 0"],
    }
    heard = {}
    failed = jobs.run_jobs(
        commands,
        tmp_path / "jobs",
        "local",
        at_once=2,
        slurm={},
        env={"HERE": str(tmp_path / "b")},
        done=heard.__setitem__,
    )
    assert failed == {"a": "error: no room", "c": "ZeroDivisionError: division by zero"}
    assert heard == {**failed, "b": None}
    assert (tmp_path / "b").exists()


def test_a_machine_without_slurm_is_told_so(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="--how=slurm: jobs cannot be submitted"):
        jobs.run_jobs({"a": ["true"]}, tmp_path, "slurm", at_once=1, slurm={}, env={})
