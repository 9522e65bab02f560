"""How long channel inference takes: tracing plus inference of ResNet-50 at 224x224. Target: 1 s.

    python benchmarks/inference.py --out inference.json

Nothing is compiled or run: the variables are abstract. `first` is the first call in the process.
"""

import argparse
import cProfile
import pstats
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
from models import ResNet50
from timing import report

import regularizers as reg


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    parser.add_argument("--out", help="write the table as JSON to this path")
    flags = parser.parse_args()
    model, x = ResNet50(), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)

    def timed(fn: Any) -> float:
        start = time.perf_counter()
        fn()
        return time.perf_counter() - start

    def infer() -> None:
        reg.trace_channels(model.apply, variables, x)

    def trace() -> None:
        jax.make_jaxpr(lambda v, x: model.apply(v, x))(variables, x)  # new: no cache

    first = timed(infer)
    pairs = [(timed(infer), timed(trace)) for _ in range(flags.repeats)]
    rows = [
        {
            "network": "resnet50",
            "first_s": first,
            "warm_s": statistics.median(a for a, _ in pairs),
            "of_which_jax_tracing_s": statistics.median(b for _, b in pairs),
        }
    ]
    report(rows, flags.out)
    if flags.profile:
        profile = cProfile.Profile()
        profile.runcall(infer)
        pstats.Stats(profile).sort_stats("cumulative").print_stats(30)


if __name__ == "__main__":
    main()
