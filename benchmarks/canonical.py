"""CP of kernels against tensorly: its best of three, from random numbers and leading vectors.

    python benchmarks/canonical.py --out results/canonical.json

decomposes kernels at several ranks by `morph.factorize` and by tensorly's `parafac` from its own
starts (`svd`, and `random` with two seeds), in float64 until it stops by itself. `ratio` is of the
errors, ours over its best; where both are below 1e-5 they count as equal. A minute on one core.
"""

import argparse
import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorly
from tensorly.decomposition import parafac
from timing import report

import morph

SAME = 1e-5  # relative errors below which nothing is better
STARTS: tuple[Mapping[str, Any], ...] = (
    {"init": "svd"},
    {"init": "random", "random_state": 0},
    {"init": "random", "random_state": 1},
)


def kernels() -> dict[str, np.ndarray]:
    """Windows [h, w, in, out] of different kinds."""
    rng = np.random.default_rng(0)
    identity = np.zeros((3, 3, 6, 6))
    identity[1, 1] = np.eye(6)
    shift = np.zeros((3, 3, 4, 4))
    for k, (row, column) in enumerate(((0, 0), (0, 2), (2, 0), (2, 2))):
        shift[row, column, k, k] = 1.0
    factors = [rng.normal(size=(n, 5)) for n in (3, 3, 8, 12)]
    border = np.zeros((2, 2, 2, 1))  # of rank 3, and of border rank 2
    border[0, 0, 1] = border[0, 1, 0] = border[1, 0, 0] = 1.0
    falling = rng.normal(size=(3, 3, 12, 16)) * 0.7 ** np.arange(16)
    return {
        "noise": rng.normal(size=(3, 3, 8, 12)),
        "falling": falling,
        "identity": identity,
        "shifts": shift,
        "rank 5": np.einsum("ar,br,cr,dr->abcd", *factors),
        "border": border,
        "depthwise": rng.normal(size=(5, 5, 1, 24)),
    }


def row_of(name: str, kernel: np.ndarray, rank: int) -> dict[str, Any]:
    """Both errors of a kernel at a rank."""
    start = time.perf_counter()
    ours = morph.factorize(kernel.astype(np.float32), "ssio", "cp", rank).error
    took = time.perf_counter() - start
    errors = []
    for options in STARTS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of singular systems
            try:
                found = parafac(kernel, rank, n_iter_max=500, tol=1e-8, **options)
            except np.linalg.LinAlgError:  # components that became zero
                errors.append(1.0)
                continue
        lost = np.linalg.norm(tensorly.cp_to_tensor(found) - kernel) / np.linalg.norm(kernel)
        errors.append(float(lost) if np.isfinite(lost) else 1.0)
    best = min(errors)
    return {
        "kernel": name,
        "rank": rank,
        "ours": ours,
        "tensorly": best,
        "ratio": 1.0 if max(ours, best) < SAME else ours / max(best, SAME),
        "seconds": took,
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", nargs="*", default=[1, 2, 4, 6, 9], type=int)
    parser.add_argument("--out", help="write the table as JSON to this path")
    flags = parser.parse_args()
    rows = [
        row_of(name, kernel, rank) for name, kernel in kernels().items() for rank in flags.ranks
    ]
    report(rows, flags.out, largest_ratio=max(row["ratio"] for row in rows))


if __name__ == "__main__":
    main()
