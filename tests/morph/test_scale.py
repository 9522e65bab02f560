"""Devices and processes: the same results on all of them, and one that speaks for all."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from small_run import STOPS, Stopped, compiled_once, make, measured

from morph.cycle.workdir import load_variables
from morph.errors import Interrupted

ROOT = Path(__file__).parents[2]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def run(workdir, mesh, count):
    """Runs it in so many processes until it is stopped; what each measured, and said last."""
    coordinator = f"127.0.0.1:{free_port()}"
    processes = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "tests/small_run.py"), *map(str, arguments), mesh],
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
        for arguments in ((workdir, coordinator, i, count) for i in range(count))
    ]
    said = [process.communicate(timeout=300)[0].splitlines()[-2:] for process in processes]
    assert [process.returncode for process in processes] == [0] * count
    return [json.loads(found) for found, _ in said], [line for _, line in said]


def test_one_process_then_two_that_share_the_network_then_one_learn_what_one_does(tmp_path):
    many, one = tmp_path / "many", tmp_path / "one"
    with compiled_once(tmp_path / "programs"):
        straight = make(one, mesh="data=1").run()
        (phase, step), second = STOPS
        with pytest.raises(Interrupted, match=f"stopped at step {step} of phase {phase!r}"):
            make(many, Stopped, mesh="data=1").run()
    found, said = run(many, "fsdp=4", 2)
    (metrics, read), whole = zip(*found, strict=True), measured()
    assert (read, whole[1]) == (([0, 2, 4], [1, 3]), [0, 1, 2, 3, 4])
    assert metrics == (pytest.approx(whole[0]),) * 2
    assert whole[0]["difference"] > 0.0
    phase, step = second  # only one of the others was asked
    assert all(f"stopped at step {step} of phase {phase!r}" in line for line in said)
    assert all(line.endswith("on 4 devices") for line in said)
    assert all(f"a checkpoint is in {many}" in line for line in said)
    last = records(many)[-1]
    assert (last["phase"], last["step"]) == ("shrink", 40)
    assert max((many / "checkpoints").iterdir()).suffix == ".shards"  # each wrote its part

    with compiled_once(tmp_path / "programs"):
        make(many, mesh="data=1").run()  # goes on where they stopped
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
