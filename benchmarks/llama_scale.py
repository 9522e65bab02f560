"""Llama 3 of 8 and 70 billion parameters in shape: traced, priced, cut to 75 %, divided, checked.

    python benchmarks/llama_scale.py --out results/llama_scale.json

No weight exists: scores are random numbers, and the cut network is checked by `jax.eval_shape`. It
is divided over 64 devices, 8 by 8, of an abstract mesh, which must divide every width that is left.
Seconds are of CPU. About half a minute of one core.
"""

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec
from timing import report

import morph
import regularizers as reg
from experiments.pretrained.llama import LLAMA3_8B, LLAMA3_70B, Llama
from morph.budget.trim import strongest_within

LENGTH, BUDGET, ROUND_TO = 128, 0.75, 128
DEVICES = ("H100", "TPUv5e")
MESH = AbstractMesh((8, 8), ("data", "model"))
# What lies along "model" of a kernel [in, out]; the other axis is divided over "data".
INWARDS = ("output", "down")


def timed(seconds: dict[str, float], name: str, run: Callable[[], Any]) -> Any:
    """What a step gives; its seconds are written down."""
    start = time.process_time()
    found = run()
    seconds[f"{name}_s"] = round(time.process_time() - start, 2)
    return found


def sharding_of(path: Any, leaf: Any) -> NamedSharding:
    """Kernels by both axes, tables by channels, norms whole."""
    names = [str(key.key) for key in path]
    if leaf.ndim == 1:
        return NamedSharding(MESH, PartitionSpec())
    if names[-1] == "embedding":
        return NamedSharding(MESH, PartitionSpec("model", "data"))
    order = ("model", "data") if names[-2] in INWARDS else ("data", "model")
    return NamedSharding(MESH, PartitionSpec(*order))


def bytes_per_device(variables: Any) -> int:
    """In bfloat16; a width that the mesh does not divide is an error of JAX."""
    shares = jax.tree_util.tree_map_with_path(
        lambda path, leaf: np.prod(sharding_of(path, leaf).shard_shape(leaf.shape)), variables
    )
    return 2 * int(sum(jax.tree.leaves(shares)))


def row(name: str, model: Llama) -> dict[str, Any]:
    """All steps of one network."""
    seconds: dict[str, float] = {}
    tokens = jax.ShapeDtypeStruct((1, LENGTH), "int32")
    variables = timed(
        seconds, "init", lambda: jax.eval_shape(model.init, jax.random.key(0), tokens)
    )
    graph = timed(seconds, "trace", lambda: reg.trace_channels(model.apply, variables, tokens))
    cost = reg.model_size(graph)

    def price() -> tuple[dict[str, Any], dict[str, float]]:
        found = {
            "flops": reg.flops(graph),
            **{f"latency_{one}": reg.latency(graph, one) for one in DEVICES},
            "activation_bytes": reg.activation_bytes(graph),
        }
        return found, {key: float(own()) for key, own in found.items()}

    prices, before = timed(seconds, "price", price)
    rng = np.random.default_rng(0)
    scores = {group: rng.exponential(size=width) for group, width in graph.widths.items()}
    # Heads and their widths stay: they are no more than a tile, and the mesh must divide them.
    floors = {group: width if width <= ROUND_TO else 1 for group, width in graph.widths.items()}
    own: dict[str, Any] = {"min_width": floors, "round_to": ROUND_TO, "fill": True}
    keep = timed(
        seconds, "trim", lambda: strongest_within(cost, scores, BUDGET * cost(), **own)
    )  # fmt: skip
    arch = timed(seconds, "shrink", lambda: morph.shrink(graph, keep))
    small = timed(seconds, "take", lambda: jax.eval_shape(arch.take, variables))
    timed(
        seconds, "compact",
        lambda: jax.eval_shape(morph.compact(model.apply, arch), small, tokens),
    )  # fmt: skip
    after = {key: float(own(arch.widths)) for key, own in prices.items()}
    return {
        "network": name,
        "parameters": int(cost()),
        "left": cost(arch.widths) / cost(),
        **seconds,
        **{f"{key}_left": after[key] / before[key] for key in prices},
        **before,
        "gb_per_device": bytes_per_device(variables) / 1e9,
        "gb_per_device_left": bytes_per_device(small) / 1e9,
        "memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="write the table as JSON to this path")
    flags = parser.parse_args()
    rows = [row("8B", Llama(LLAMA3_8B)), row("70B", Llama(LLAMA3_70B))]
    report(rows, flags.out, length=LENGTH, budget=BUDGET, round_to=ROUND_TO, mesh="8 x 8")


if __name__ == "__main__":
    main()
