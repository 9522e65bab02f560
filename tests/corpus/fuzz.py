"""Many random programs: what is called exact is, values and gradients.

In `tests`, for hours if need be: `python -m corpus.fuzz --programs=2000 --log=fuzz.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np
from corpus.programs import HARD, IMAGE, OPERATIONS, network
from corpus.soundness import FAST, draw_alive

import morph
import regularizers as reg

TOLERANCE = 1e-4  # some programs divide by small numbers
WITH_SLOPES = 0.3  # of the programs: tracing and compiling them takes three times as long
EVERY = 50  # programs, after which JAX forgets what it compiled
QUICK = FAST | {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one program.

    Attributes:
        seed: draws the program again.
        verdict: `sound`, `wrong`, or `empty` where there is nothing to compare: the seed's numbers
            are not finite, nor both the masked and the shrunk network's, or they are all zero.
        program: its operations, widths and choices, and the head.
        found: differences, and how many groups there were; or what was raised.
    """

    seed: int
    verdict: str
    program: str
    found: Any


def draw(rng: np.random.Generator) -> tuple[list[Any], int]:
    """A program of up to four operations, more than half of them hard ones."""
    steps = []
    for _ in range(rng.integers(1, 5)):
        operations = HARD if rng.random() < 0.6 else OPERATIONS
        operation = operations[rng.integers(len(operations))]
        steps.append((operation, int(rng.integers(2, 7)), int(rng.integers(6))))
    return steps, int(rng.integers(2))


def check(seed: int) -> Outcome:
    """Shrinks one program to random channels, and compares it with the masked one."""
    rng = np.random.default_rng(seed)
    operations, last = draw(rng)
    names = [f"{op.__name__}({width},{choice})" for op, width, choice in operations]
    program = " ".join([*names, f"head({last})"])
    fn, variables = network((operations, last))
    x = rng.normal(size=IMAGE).astype(np.float32)
    try:
        verdict, found = compare(fn, variables, x, rng)
    except Exception as error:  # whatever it is, it is what this looks for
        verdict, found = "wrong", f"{type(error).__name__}: {error}"
    return Outcome(seed=seed, verdict=verdict, program=program, found=found)


def compare(fn: Any, variables: Any, x: Any, rng: np.random.Generator) -> tuple[str, Any]:
    """The verdict on a function, and the differences that it rests on; in one compilation."""
    graph = reg.trace_channels(fn, variables, x)
    alive = draw_alive(graph, rng, rng.uniform(0.3, 0.8))
    arch = morph.shrink(graph, alive)
    slopes = rng.random() < WITH_SLOPES
    weights = rng.normal(size=jax.eval_shape(fn, variables, x).shape).astype(np.float32)

    def outputs(call: Any, variables: Any) -> tuple[Any, Any]:
        def total(variables: Any) -> tuple[Any, Any]:
            out = call(variables, x)
            return (weights * out).sum(), out

        if not slopes:
            return total(variables)[1], {}
        return jax.grad(total, has_aux=True)(variables)[::-1]

    def everything(variables: Any) -> Any:
        masked = graph.mask(variables, alive)
        dense, dense_slopes = outputs(fn, masked)
        small, small_slopes = outputs(morph.compact(fn, arch), arch.take(masked))
        return fn(variables, x), dense, small, arch.take(dense_slopes or variables), small_slopes

    lowered = jax.jit(everything).lower(variables)
    seed, dense, small, expected, found = map(_numbers, lowered.compile(QUICK)(variables))
    figures = {
        "values": _apart(small, dense),
        "gradients": _apart(found, expected) if slopes and np.isfinite(expected).all() else None,
        "groups": len(graph.groups),
        "exact": sum(group.exact for group in graph.groups.values()),
        "resized": len(arch.resized),
        "pinned": not graph.groups,
    }
    if not np.isfinite(seed).all() or not np.any(dense):
        return "empty", figures
    if not np.isfinite(small).all() and not np.isfinite(dense).all():
        return "empty", figures  # what is alive is constant, and divided by its deviation
    good = max(figures["values"], figures["gradients"] or 0.0) <= TOLERANCE and not graph.unknown
    return "sound" if good else "wrong", figures


def _numbers(tree: Any) -> np.ndarray:
    """All numbers of a tree in a row."""
    leaves = [np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)]
    return np.concatenate([np.zeros(0), *leaves])


def _apart(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest number; infinite if one is not finite."""
    difference = np.abs(found - expected).max(initial=0.0)
    if not np.isfinite(difference):
        return float("inf")
    return float(difference / np.abs(expected).max(initial=0.0)) if difference else 0.0


def main() -> None:
    """Runs many programs; prints the figures, and the wrong ones as they come."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the seed of the first program")
    parser.add_argument("--log", default="", help="a file for all outcomes, one a line")
    args = parser.parse_args()
    counts: Counter[str] = Counter()
    started = time.monotonic()
    for n, seed in enumerate(range(args.first, args.first + args.programs), 1):
        outcome = check(seed)
        counts[outcome.verdict] += 1
        if isinstance(outcome.found, dict):
            counts.update({k: outcome.found[k] for k in ("groups", "exact", "resized")})
            counts["pinned"] += outcome.found["pinned"]
            counts["with gradients"] += outcome.found["gradients"] is not None
        if outcome.verdict == "wrong":
            print(json.dumps(asdict(outcome)), flush=True)
        if args.log:
            with open(args.log, "a", encoding="utf-8") as log:
                log.write(json.dumps(asdict(outcome)) + "\n")
        if n % EVERY == 0:
            jax.clear_caches()
            print(f"{n} programs, {time.monotonic() - started:.0f} s: {dict(counts)}", flush=True)
    print(json.dumps({"programs": args.programs, **counts}))


if __name__ == "__main__":
    main()
