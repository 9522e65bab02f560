"""Seconds to factorize every kernel of a ResNet-50 by Tucker-2 at EVBMF ranks, on the host.

    python benchmarks/tensorize_resnet50.py --out results/tensorize_resnet50.json

Two networks of its shapes: random weights, of which nothing stands out of the noise (ranks 1), and
weights of a third of the full rank plus noise, whose ranks are to be found.
"""

import argparse
import math
import time

import numpy as np
from timing import report

from morph.kernels.decompose import factorize

NOISE = 0.1  # of the low-rank part's standard deviation
STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))  # blocks, width


def kernels() -> list[tuple[str, tuple[int, ...]]]:
    """Roles and shapes of all kernels; 53 convolutions and the classifier."""
    found = [("ssio", (7, 7, 3, 64))]
    wide = 64
    for blocks, width in STAGES:
        for block in range(blocks):
            if block == 0:
                found.append(("ssio", (1, 1, wide, 4 * width)))
            found.append(("ssio", (1, 1, wide, width)))
            found.append(("ssio", (3, 3, width, width)))
            found.append(("ssio", (1, 1, width, 4 * width)))
            wide = 4 * width
    return [*found, ("io", (wide, 1000))]


def noisy(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A Tucker-2 kernel of a third of the full ranks, and noise on it."""
    *window, ins, outs = shape
    low_in, low_out = max(1, ins // 3), max(1, outs // 3)
    core = generator.standard_normal((*window, low_in, low_out))
    left = generator.standard_normal((low_in, ins)) / math.sqrt(low_in)
    right = generator.standard_normal((low_out, outs)) / math.sqrt(low_out)
    kernel = np.swapaxes(np.swapaxes(core, -1, -2) @ left, -1, -2) @ right
    return (kernel + NOISE * generator.standard_normal(shape)).astype(np.float32)


def main() -> None:
    """Prints the seconds of both networks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="write the table as JSON to this path")
    flags = parser.parse_args()
    generator = np.random.default_rng(0)
    shapes = kernels()
    networks = {
        "random": [generator.standard_normal(shape).astype(np.float32) for _, shape in shapes],
        "low_rank_and_noise": [noisy(generator, shape) for _, shape in shapes],
    }
    rows = []
    for name, weights in networks.items():
        start, cpu_start = time.perf_counter(), time.process_time()
        found = [
            factorize(weight, roles, "tucker2", "vbmf")
            for (roles, _), weight in zip(shapes, weights, strict=True)
        ]
        rows.append(
            {
                "weights": name,
                "kernels": len(found),
                "seconds": round(time.perf_counter() - start, 1),
                "cpu_seconds": round(time.process_time() - cpu_start, 1),
                "parameters": sum(weight.size for weight in weights),
                "factorized_parameters": sum(one.value.parameters for one in found),
                "largest_error": round(max(one.error for one in found), 4),
            }
        )
    report(rows, flags.out)


if __name__ == "__main__":
    main()
