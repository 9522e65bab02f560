"""Shrunk against dense networks in ONNX Runtime: what of the cut in FLOPs becomes time.

    python benchmarks/onnx_speed.py --out results/onnx_speed.json

Six networks, untrained, half of every group's channels removed. Both files run in turn in one
process, on one thread, on the same batch; ratios of CPU time are medians over the rounds.
`speedup_share` is the speed-up over the ratio of FLOPs (3 times as fast at a quarter: 0.75);
`time_share`, which is kinder, the part of the time that is gone over the part of the FLOPs that is
gone.

The goal is 0.85 on the median.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnxruntime
from timing import report

from experiments.networks import build
from morph.architecture.shrink import shrink
from morph.export import onnx
from morph.network import linen_network
from regularizers.channels.trace import trace_channels
from regularizers.costs.flops import flops

GOAL = 0.85
BATCH, ROUNDS = 8, 40
CASES: dict[str, tuple[tuple[int, int, int], float]] = {  # the input, and times the usual width
    "mlp": ((28, 28, 1), 4.0),
    "lenet5": ((28, 28, 1), 4.0),
    "cnn": ((32, 32, 3), 4.0),
    "resnet8": ((32, 32, 3), 4.0),
    "resnet20": ((32, 32, 3), 2.0),
    "vit": ((32, 32, 3), 4.0),
}


def session(path: Path) -> Any:
    """An ONNX file, run by one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def measure(name: str, folder: Path) -> dict[str, Any]:
    """One network: its cuts in FLOPs and in time."""
    shape, width = CASES[name]
    seed = linen_network(build(name, input_shape=shape, num_classes=10, width=width))
    x = np.random.default_rng(0).normal(size=(BATCH, *shape)).astype(np.float32)
    variables = seed.init(jax.random.key(0), x[:1])
    graph = trace_channels(seed.predict, variables, x[:1])
    halves = {group: np.arange(size) % 2 == 0 for group, size in graph.widths.items()}
    architecture = shrink(graph, halves)
    small = seed.resized(architecture)
    taken = architecture.take(variables)
    networks = {"dense": (seed, variables), "shrunk": (small, taken)}
    sessions, costs = {}, {}
    for kind, (network, own) in networks.items():
        written = onnx.to_onnx(network.predict, own, x[:2], folder / f"{kind}.onnx")
        sessions[kind] = session(written.path)
        costs[kind] = int(flops(trace_channels(network.predict, own, x[:1]))())
    seconds: dict[str, list[float]] = {kind: [] for kind in sessions}
    for _ in range(ROUNDS):
        for kind, run in sessions.items():
            started = time.thread_time()  # of the CPU: what else runs does not count
            run.run(None, {onnx.INPUT: x})
            seconds[kind].append(time.thread_time() - started)
    dense, shrunk = (np.asarray(own[5:]) for own in seconds.values())
    speedup, ratio = float(np.median(dense / shrunk)), costs["dense"] / costs["shrunk"]
    row = {
        "network": name,
        "flops": costs,
        "milliseconds": {kind: round(1e3 * float(np.median(s)), 4) for kind, s in seconds.items()},
        "flops_ratio": round(ratio, 3),
        "speedup": round(speedup, 3),
        "speedup_share": round(speedup / ratio, 3),
        "time_share": round((1 - 1 / speedup) / (1 - 1 / ratio), 3),
    }
    print(row, flush=True)
    return row


def main() -> None:
    """Measures all networks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(name, Path(folder)) for name in CASES]
    shares = ("speedup_share", "time_share")
    medians = {name: float(np.median([row[name] for row in rows])) for name in shares}
    report(rows, arguments.out, batch=BATCH, threads=1, medians=medians, goal=GOAL)


if __name__ == "__main__":
    main()
