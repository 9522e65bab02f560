"""Seconds to share weights and to decode files.

    taskset -c 1 python benchmarks/compression_speed.py --out results/compression_speed.json

Goals: 400,000 weights in 32 clusters in under 5 s; 20 MB of dense 32-bit weights decoded a second.
The kernels are of the size of LeNet-5's first dense layer and of a dense layer of 2,048 x 2,048,
pruned to 8 % and not pruned, in 16 clusters. Each figure is the least of five.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from timing import report

from morph.compress.cluster import METHODS, clustered
from morph.compress.coding.container import pack, unpack
from morph.compress.coding.symbols import CODERS
from morph.kernels.compressed import Shared

REPEATS = 5


def least_seconds(run: Callable[[], Any]) -> float:
    """Of some repeats."""
    found = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return min(found)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="write the table as JSON to this path")
    flags = parser.parse_args()
    g = np.random.default_rng(0)
    weights = g.standard_normal(400_000)
    rows: list[dict[str, Any]] = []
    for method in METHODS:
        seconds = least_seconds(lambda method=method: clustered(weights, 32, method=method))
        rows.append({"what": f"400,000 weights in 32 clusters, {method}", "seconds": seconds})
    for shape in ((800, 500), (2048, 2048)):
        for kept in (0.08, 1.0):
            codes = g.integers(1, 17, shape) * (g.random(shape) < kept)
            leaf = Shared(centroids=np.ones(16, np.float32), codes=codes.astype(np.uint8))
            for coder in CODERS:
                data = pack({"kernel": leaf}, coder=coder)
                seconds = least_seconds(lambda data=data: unpack(data))
                rows.append(
                    {
                        "what": f"decode {shape[0]}x{shape[1]}, {kept:.0%} kept, {coder}",
                        "seconds": seconds,
                        "bytes": len(data),
                        "mb_per_s": 4e-6 * codes.size / seconds,
                    }
                )
    report(rows, flags.out)


if __name__ == "__main__":
    main()
