"""Devices and processes: the same results on all of them, and one that speaks for all."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from small_run import STOP, compiled_once, make

from morph.cycle.workdir import load_variables
from morph.training import mesh as m

ROOT = Path(__file__).parents[2]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_of_four_devices_learn_what_one_device_does(tmp_path):
    many, one = tmp_path / "many", tmp_path / "one"
    coordinator = f"127.0.0.1:{free_port()}"
    processes = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "tests/small_run.py"), str(many), coordinator, str(i), "2"],
            env={
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
                "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
                "PYTHONPATH": str(ROOT),
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    with compiled_once(tmp_path / "programs"):
        straight = make(one).run()
    said = [process.communicate(timeout=300)[0].splitlines()[-1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    phase, step = STOP  # only the second was asked
    assert all(f"stopped at step {step} of phase {phase!r}" in line for line in said)
    assert all(line.endswith("on 8 devices") for line in said)
    assert f"a checkpoint is in {many}" in said[0]
    assert records(many)[-1]["step"] == step

    with compiled_once(tmp_path / "programs"):
        make(many).run()  # goes on where they stopped: one process, one device
    assert {path.name for path in many.iterdir()} == {path.name for path in one.iterdir()}
    mine, theirs = records(many), records(one)
    assert [(r["phase"], r["step"]) for r in mine] == [(r["phase"], r["step"]) for r in theirs]
    # Which of equally weak channels dies first is a matter of rounding, on one device as well.
    smooth = [i for i, r in enumerate(theirs) if r.get("cost_ratio", 1.0) == 1.0]
    assert {theirs[i]["phase"] for i in smooth} == {"seed", "shrink", "retrain"}
    for name, where in (("loss", smooth), ("strength", range(len(theirs)))):
        np.testing.assert_allclose(
            [mine[i].get(name, 0.0) for i in where],
            [theirs[i].get(name, 0.0) for i in where],
            rtol=1e-5,
        )
    variables = load_variables(many / "variables")
    for a, b in zip(jax.tree.leaves(variables), jax.tree.leaves(straight.variables), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_batch_that_cannot_be_cut_evenly_is_refused():
    three = Mesh(np.asarray(jax.devices() * 3)[:1], ("data",))
    assert m.split(np.zeros((2, 5), int), three).shape == (2, 5)
    with pytest.raises(m.MeshError, match=r"batch of 12 examples .* 8 devices; .* multiple of 8"):
        m.check_divisible(12, jax.sharding.AbstractMesh((4, 2), ("a", "b")))


def test_arrays_of_one_process_go_to_the_mesh_and_back_unchanged():
    tree = {"a": jnp.asarray([-0.0, np.nan], jnp.bfloat16), "b": 3, "c": np.zeros((0, 2), bool)}
    there = m.replicated(tree, m.data_mesh())
    assert there["a"].sharding.is_fully_replicated
    back = m.local(there)
    assert np.asarray(back["a"]).tobytes() == np.asarray(tree["a"]).tobytes()
    assert (back["b"], back["c"].shape) == (3, (0, 2))


def test_one_process_needs_no_agreement():
    assert m.any_of(True, False) == (True, False)
    assert m.from_first(lambda: 7) == 7
    assert m.is_first()


def test_processes_are_joined_only_if_all_is_known(monkeypatch):
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS", raising=False)
    assert not m.connect()
    with pytest.raises(m.MeshError, match=r"belong together; .*process_id=1, num_processes=None"):
        m.connect("here:1", 1)
    with pytest.raises(m.MeshError, match=r"process 2 of 2 cannot join the others at here:1: "):
        m.connect("here:1", 2, 2)


def test_tasks_of_slurm_are_joined_by_themselves(monkeypatch):
    joined = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **k: joined.append(a))
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert not m.connect()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    assert m.connect()
    assert joined == [(None, None, None)]
