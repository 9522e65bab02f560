"""One 50 % global prune beside Torch-Pruning's: graph, strengths, choice, and smaller arrays.

    python -m venv torch-env
    torch-env/bin/pip install torch==2.13.0 numpy
    torch-env/bin/pip install --no-deps torch-pruning
    python benchmarks/against_torch_pruning.py --torch_python torch-env/bin/python \
        --out results/torch_pruning.json

Needs an environment of its own with PyTorch; nothing else here does. Networks at 1x3x224x224 with
new random weights each time, made outside of the timer; both sides on the same core and thread, in
turn. `first` is the first prune in a process, the medians are over those after it; both include
whatever a side compiles. CPU seconds are less disturbed by what else runs than seconds are.
Target: faster on each.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from timing import ONE_THREAD, one_core, report

HERE = Path(__file__).parent
NETWORKS = ("resnet50", "resnet101", "mobilenet_v2", "densenet121", "vit_b16")


class Side:
    """A process that prunes once per line that it is sent."""

    def __init__(self, python: str, script: str, network: str) -> None:
        self.process = subprocess.Popen(
            [python, str(HERE / script), network],
            env={**os.environ, **ONE_THREAD},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.versions = self._read()

    def prune(self) -> dict[str, float]:
        """Seconds, CPU seconds, and the share of the parameters that is left."""
        print(file=self.process.stdin, flush=True)
        return self._read()

    def close(self) -> None:
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait()

    def _read(self) -> Any:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} ended with code {self.process.wait()}")
        return json.loads(line)


def measure(network: str, torch_python: str, repeats: int) -> tuple[dict[str, Any], dict[str, str]]:
    """One row, and the versions of both sides."""
    ours = Side(sys.executable, "prune_morph.py", network)
    theirs = Side(torch_python, "prune_torch.py", network)
    runs = [(ours.prune(), theirs.prune()) for _ in range(repeats + 1)]
    ours.close()
    theirs.close()
    row: dict[str, Any] = {"network": network}
    for what in ("seconds", "cpu_seconds"):
        for name, side in zip(("morph", "torch_pruning"), zip(*runs, strict=True), strict=True):
            row[f"{name}_first_{what}"] = side[0][what]
            row[f"{name}_{what}"] = statistics.median(run[what] for run in side[1:])
        row[f"{what}_ratio"] = row[f"torch_pruning_{what}"] / row[f"morph_{what}"]
    for name, side in zip(("morph", "torch_pruning"), runs[-1], strict=True):
        row[f"{name}_parameters_left"] = side["parameters_left"]
    return row, ours.versions | theirs.versions


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch_python", required=True, help="interpreter with Torch-Pruning")
    parser.add_argument("--networks", nargs="*", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", help="write the table as JSON to this path")
    flags = parser.parse_args()
    rows, versions = [], {}
    one_core()
    for network in flags.networks:
        row, versions = measure(network, flags.torch_python, flags.repeats)
        rows.append(row)
        print(
            f"{network}: {row['morph_seconds']:.2f} s, Torch-Pruning "
            f"{row['torch_pruning_seconds']:.2f} s; on the CPU {row['morph_cpu_seconds']:.2f} s, "
            f"{row['torch_pruning_cpu_seconds']:.2f} s",
            flush=True,
        )
    command = "python benchmarks/against_torch_pruning.py --torch_python PYTHON"
    report(rows, flags.out, command=command, sides=versions)


if __name__ == "__main__":
    main()
