"""The same run on other numbers of devices and processes: its loss curve must stay the same.

    python benchmarks/scale.py --out results/scale.json

`python -m experiments.run` on digits, each time with the same global batch: on one device, on 8
forced host devices, and in 2 and 4 processes that talk over loopback. The largest relative
difference of a loss to the one on one device: of the training from scratch (`plain`), of the shrink
phase until its first channel dies (`shrink`), and after that (`dying`). Which of equally weak
channels dies first is a matter of rounding: beside it the same for one device whose learning rate
is changed by one part in ten million (`nudged`). About two minutes on two cores.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from timing import report

# Processes, and devices of each.
SHAPES = {"one": (1, 1), "nudged": (1, 1), "8 devices": (1, 8), "2": (2, 1), "4": (4, 1)}
RATE = 0.1


def run(name: str, workdir: Path, network: str) -> list[dict[str, Any]]:
    """Runs it and returns its records."""
    processes, devices = SHAPES[name]
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{found.getsockname()[1]}"
    flags = {
        "seed_network": network,
        "dataset": "digits",
        "penalty": "group_lasso",
        "seed_steps": 100,
        "shrink_steps": 200,
        "retrain_steps": 100,
        "learning_rate": RATE * (1.0 + 1e-7 * (name == "nudged")),
        "workdir": workdir,
    }
    command = [sys.executable, "-m", "experiments.run"]
    command += [f"--{flag}={value}" for flag, value in flags.items()]
    force = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": force}
    children = []
    for i in range(processes):
        own = [f"--coordinator={coordinator}", f"--process_id={i}", f"--num_processes={processes}"]
        children.append(
            subprocess.Popen(
                command + own * (processes > 1), env=environment, stdout=subprocess.DEVNULL
            )
        )
    codes = [child.wait() for child in children]
    if any(codes):
        raise SystemExit(f"{name}: a process failed")
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def compared(mine: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, float]:
    """The largest relative difference of a loss, by the part of the run."""
    largest = {"plain": 0.0, "shrink": 0.0, "dying": 0.0}
    for a, b in zip(mine, theirs, strict=True):
        part = "plain"
        if "cost_ratio" in b:
            part = "shrink" if b["cost_ratio"] == 1.0 else "dying"
        largest[part] = max(largest[part], abs(a["loss"] / b["loss"] - 1.0))
    return largest


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="mlp")
    parser.add_argument("--out", help="write the table as JSON to this path")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        records = {name: run(name, root / name, args.network) for name in SHAPES}
        files = {name: sorted(path.name for path in (root / name).iterdir()) for name in SHAPES}
    rows = [
        {
            "run": name,
            "processes": SHAPES[name][0],
            "devices": SHAPES[name][0] * SHAPES[name][1],
            "same_files": files[name] == files["one"],
            **compared(records[name], records["one"]),
        }
        for name in SHAPES
    ]
    report(rows, args.out, network=args.network)


if __name__ == "__main__":
    main()
