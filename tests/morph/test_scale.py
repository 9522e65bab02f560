"""Devices and processes: the same results on all of them, and one that speaks for all."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
from small_run import STOP, compiled_once, make

from morph.cycle.workdir import load_variables

ROOT = Path(__file__).parents[2]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_of_two_devices_learn_what_one_device_does(tmp_path):
    many, one = tmp_path / "many", tmp_path / "one"
    coordinator = f"127.0.0.1:{free_port()}"
    processes = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "tests/small_run.py"), str(many), coordinator, str(i), "2"],
            env={
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
                "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2",
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
    assert all(line.endswith("on 4 devices") for line in said)
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
