"""Our side of `against_torch_pruning.py`: one line of JSON per line that it reads."""

import argparse
import cProfile
import json
import pstats
import sys
import time
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from models import IMAGE, MODELS, abstract, random_variables

import morph
import regularizers as reg


def prune(model: Any, variables: Any, image: jax.Array) -> tuple[morph.Architecture, Any]:
    """Builds the graph, and removes the globally weakest half of all channels.

    Strengths are relative to their group's mean, as Torch-Pruning's are.
    """
    graph = reg.trace_channels(model.apply, variables, image)
    regularizer = reg.NetworkRegularizer(graph, reg.model_size(graph), "group_lasso")
    found = {name: np.asarray(s) for name, s in regularizer.strengths(variables).items()}
    strengths = {name: s / s.mean() for name, s in found.items()}
    weakest = np.median(np.concatenate(list(strengths.values())))
    arch = morph.shrink(graph, {name: s > weakest for name, s in strengths.items()})
    return arch, jax.block_until_ready(arch.take(variables))


def parameters(variables: Any) -> int:
    """The number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def measure(name: str, seed: int) -> dict[str, Any]:
    """Seconds of one prune of a new model, and the share of its parameters that is left."""
    model, shapes, _ = abstract(name)
    variables, image = random_variables(shapes, seed), jnp.ones(IMAGE)
    start, cpu_start = time.perf_counter(), time.process_time()
    arch, small = prune(model, variables, image)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    logits = jax.eval_shape(morph.compact(model.apply, arch), small, image)
    assert logits.shape == (1, 1000)
    left = parameters(small) / parameters(shapes)
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "parameters_left": left}


def main() -> None:
    """Answers until its input ends; the first line holds the versions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=MODELS)
    parser.add_argument("--profile", action="store_true", help="print where the time goes, twice")
    flags = parser.parse_args()
    print(json.dumps({name: version(name) for name in ("jax", "flax")}), flush=True)
    if flags.profile:
        for seed in range(2):
            profile = cProfile.Profile()
            profile.runcall(measure, flags.network, seed)
            pstats.Stats(profile).sort_stats("cumulative").print_stats(40)
        return
    for seed, _ in enumerate(sys.stdin):
        print(json.dumps(measure(flags.network, seed)), flush=True)


if __name__ == "__main__":
    main()
