"""Tensor-train layers of ours and of TensorLy-Torch, in one run, beside dense layers.

    python benchmarks/against_tltorch.py --out results/against_tltorch.json

in an environment of its own that has `torch` and `tensorly-torch` besides (`pip install torch
tensorly-torch packaging opt_einsum`). The same sizes, cores and random numbers; both on one thread,
timed in turn in one process. Each is compared with the dense layer of its own framework: what
matters to whoever is in it; milliseconds stand beside it. Ours is `auto`, `settled`; theirs is the
faster of its two ways, factorized and reconstructed.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import jax.numpy as jnp
import numpy as np
import tensorize_speed as speed
import tltorch
import torch
from timing import report

import morph
from morph.kernels.factorized import Factorized
from morph.kernels.tensorized import settled
from regularizers.calibration.timing import compiled, interleaved

BATCHES = (1, 32, 256)
LAYERS = {"1024x1024, 2 cores, rank 16": ((32, 32), 16)}


def row(name: str, batch: int, seconds: float) -> dict[str, Any]:
    """One layer at one batch."""
    parts, rank = LAYERS[name]
    size = int(np.prod(parts))
    kernel = speed.layer("tt", (size, size), "io", {"cores": len(parts)}, rank)
    numbers = np.random.default_rng(1).standard_normal((batch, size), np.float32)
    x, given = jnp.asarray(numbers), torch.from_numpy(numbers)
    best = settled(speed.apply, kernel, x)
    runs = {
        "ours": compiled(morph.tensorized(speed.apply, mode="auto"), best, x),
        "our dense": compiled(speed.apply, kernel.dense(), x),
    }
    for way in ("factorized", "reconstructed"):
        layer = tltorch.FactorizedLinear(
            parts, parts, rank=rank, factorization="blocktt", implementation=way, bias=False
        )
        with torch.no_grad():
            for factor in layer.weight.factors:
                factor.normal_(std=factor.numel() ** -0.25)
        runs[f"theirs, {way}"] = without_gradients(layer, given)
    dense = torch.nn.Linear(size, size, bias=False)
    runs["their dense"] = without_gradients(dense, given)
    least = interleaved(list(runs.values()), seconds=seconds, rounds=15).min(axis=1)
    found = dict(zip(runs, (1e3 * least).tolist(), strict=True))
    theirs = min(found["theirs, factorized"], found["theirs, reconstructed"])
    return {
        "layer": name,
        "batch": batch,
        "settled": "factorized" if isinstance(best, Factorized) else "dense",
        "ours_over_dense": round(found["ours"] / found["our dense"], 3),
        "theirs_over_dense": round(theirs / found["their dense"], 3),
        "theirs_factorized_over_dense": round(
            found["theirs, factorized"] / found["their dense"], 3
        ),
        "ours_over_theirs": round(found["ours"] / theirs, 3),
        "milliseconds": {way: round(t, 4) for way, t in found.items()},
    }


def without_gradients(layer: Any, x: Any) -> Callable[[], None]:
    """The layer as it is used to predict."""

    def run() -> None:
        with torch.no_grad():
            layer(x)

    return run


def main() -> None:
    """Times all layers at all batches."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out")
    parser.add_argument("--seconds", type=float, default=3.0, help="of every row, about")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in LAYERS:
        for batch in BATCHES:
            rows.append(row(name, batch, flags.seconds))
            print(rows[-1], flush=True)
    versions = {"torch": torch.__version__, "tltorch": tltorch.__version__}
    report(rows, flags.out, packages=versions)


if __name__ == "__main__":
    main()
