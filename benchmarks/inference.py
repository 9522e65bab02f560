"""How long channel inference takes, and how much memory: tracing plus inference at 224x224.

    python benchmarks/inference.py --out results/inference.json

Every network has processes of its own, on one core (about four minutes in all). Nothing is compiled
or run: the variables are abstract. `first` is the first call in a process; the rows `chain` are
chains of equal blocks of growing depth: their time per equation must not grow. (In a `dense_chain`
the result itself is quadratic: the k-th kernel's axis is a sum of k groups.) CPU seconds are less
disturbed by what else runs than seconds are.
Targets: 5 s up to 5,000 equations, 3 s for DenseNet-121 and Swin-T, 1 GB for ViT-L.
"""

import argparse
import cProfile
import json
import pstats
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.extend.core import ClosedJaxpr, Jaxpr
from models import MODELS, Chain, abstract
from timing import on_one_core, report, timed

import regularizers as reg

CHAINS = {f"chain{n}": Chain(n) for n in (50, 100, 150, 200, 400)} | {
    f"dense_chain{n}": Chain(n, dense=True) for n in (25, 50, 100)
}
MEBIBYTE = 2**20
MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024  # the unit of ru_maxrss
TARGETS_S = {"densenet121": 3.0, "swin_t": 3.0}
LARGE_EQUATIONS, LARGE_S = 5_000, 5.0
PEAK_MIB = {"vit_l16": 1e9 / MEBIBYTE}


def build(name: str) -> tuple[nn.Module, Any, jax.ShapeDtypeStruct]:
    """A network, its variables as shapes, and its input."""
    if name in MODELS:
        return abstract(name)
    x = jax.ShapeDtypeStruct((1, 8), jnp.float32)
    return CHAINS[name], jax.eval_shape(CHAINS[name].init, jax.random.key(0), x), x


def peak_mib() -> float:
    """The largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_BYTES / MEBIBYTE


def equations(jaxpr: Jaxpr) -> int:
    """The equations of a jaxpr and of all jaxprs inside it."""
    return sum(1 + sum(map(equations, _inner(eqn.params))) for eqn in jaxpr.eqns)


def _inner(params: dict[str, Any]) -> Iterator[Jaxpr]:
    for value in params.values():
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item


def jobs(name: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """What is timed: inference with its own trace, and JAX's tracing alone."""
    model, variables, x = build(name)

    def infer() -> Any:
        return reg.trace_channels(model.apply, variables, x)

    def trace() -> Any:
        return jax.make_jaxpr(lambda v, x: model.apply(v, x))(variables, x)  # new: no cache

    return infer, trace


def measure(name: str, repeats: int) -> dict[str, Any]:
    """One row, but for the first trace, measured in this process."""
    infer, trace = jobs(name)
    before = peak_mib()
    first = timed(infer)
    peak = peak_mib()
    pairs = [(timed(infer), timed(trace)) for _ in range(repeats)]
    warm, warm_cpu, _, traced_cpu = (
        statistics.median(column) for column in zip(*(a + b for a, b in pairs), strict=True)
    )
    count = equations(trace().jaxpr)
    return {
        "network": name,
        "equations": count,
        "first_s": first.wall,
        "first_cpu_s": first.cpu,
        "warm_s": warm,
        "warm_cpu_s": warm_cpu,
        "of_which_jax_tracing_cpu_s": traced_cpu,
        "cpu_ms_per_equation": 1e3 * warm_cpu / count,
        "own_cpu_ms_per_equation": 1e3 * (warm_cpu - traced_cpu) / count,
        "peak_mib": peak,
        "growth_mib": peak - before,
        "groups": len(infer().groups),
    }


def first_trace(name: str) -> float:
    """CPU seconds of JAX's own tracing as the first call in this process."""
    _, trace = jobs(name)
    return timed(trace).cpu


def verdict(row: dict[str, Any]) -> str:
    """Which targets the row misses."""
    limit = LARGE_S if row["equations"] <= LARGE_EQUATIONS else float("inf")
    slow = row["first_s"] > TARGETS_S.get(row["network"], limit)
    large = row["peak_mib"] > PEAK_MIB.get(row["network"], float("inf"))
    return "; ".join(what for what, on in (("slow", slow), ("large", large)) if on) or "ok"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=[*MODELS, *CHAINS])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", help="print where the time goes for this network, and stop")
    parser.add_argument("--out", help="write the table as JSON to this path")
    parser.add_argument("--job", help=argparse.SUPPRESS)  # what a process of its own measures
    flags = parser.parse_args()
    if flags.job == "infer":
        print(json.dumps(measure(flags.networks[0], flags.repeats)))
    elif flags.job == "trace":
        print(json.dumps(first_trace(flags.networks[0])))
    elif flags.profile:
        infer, _ = jobs(flags.profile)
        infer()
        profile = cProfile.Profile(time.process_time)
        profile.runcall(infer)
        pstats.Stats(profile).sort_stats("cumulative").print_stats("regularizers")
    else:
        rows = []
        for name in flags.networks:
            one = (__file__, "--networks", name, "--repeats", str(flags.repeats))
            row = on_one_core(*one, "--job", "infer")
            row["first_jax_tracing_cpu_s"] = on_one_core(*one, "--job", "trace")
            row["verdict"] = verdict(row)
            rows.append(row)
            print(
                f"{name}: {row['equations']} equations, first {row['first_s']:.2f} s "
                f"({row['first_cpu_s']:.2f} s on the CPU), {row['peak_mib']:.0f} MiB",
                flush=True,
            )
        report(rows, flags.out, command="python benchmarks/inference.py")


if __name__ == "__main__":
    main()
