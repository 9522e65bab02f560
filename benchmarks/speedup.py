"""Real speed from shrinking: ResNet-50 forward, batch 8 at 224x224, one thread of one core.

    python benchmarks/speedup.py --out results/speedup.json

The wall-clock speed-up of the compacted network over its reduction of FLOPs; target: 0.85 with half
of every group. Beside it the same network built natively at these widths (what XLA gives a plain
model: the ceiling for `compact`), and other widths of about the same FLOPs: multiples of 16, and
odd ones. XLA's convolution of a 3-channel image is several times slower to at most 32 channels than
to 33 on some CPUs; therefore also both networks with a fourth channel of zeros in the image (their
speed-up is over the seed with such an image). `products_s` is the sum over all convolutions and
matrix products, each timed alone; the rest is norms, relus, sums and pooling. Medians of
interleaved runs; about four minutes.
"""

import argparse
import json
import re
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from models import ResNet, random_variables
from timing import on_one_core, report, timed

import morph
import regularizers as reg
from regularizers.primitives import axes as ax

BLOCKS = (3, 4, 6, 3)
PADDED = "padded image"
OPCODE = re.compile(r"^\s*(?:ROOT )?\S+ = .*?\s([a-z][\w-]*)\(", re.MULTILINE)


def choices(widths: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """The widths to measure: half of each group, and random ones of 40 to 60 %."""
    draw = np.random.default_rng(0)
    near_half = {name: int(width * draw.uniform(0.4, 0.6)) for name, width in widths.items()}
    return {
        "half": {name: width // 2 for name, width in widths.items()},
        "multiples of 16": {name: max(16, 16 * round(w / 16)) for name, w in near_half.items()},
        "odd": {name: w | 1 for name, w in near_half.items()},
    }


def alive(widths: Mapping[str, int], kept: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Which channels stay: random ones, as many as `kept` says."""
    draw = np.random.default_rng(1)
    return {name: draw.permutation(width) < kept[name] for name, width in widths.items()}


def compiled(fn: Callable[..., Any], *arguments: Any) -> Any:
    """`fn` compiled for these arguments."""
    return jax.jit(fn).lower(*arguments).compile()


def opcodes(program: Any) -> Counter[str]:
    """How many instructions of each kind a compiled program has."""
    return Counter(OPCODE.findall(program.as_text()))


def padded(model: ResNet, variables: Any, x: jax.Array) -> tuple[Any, Any]:
    """The same function with a fourth channel of zeros in the image, compiled; its variables."""
    stem = variables["params"]["Conv_0"]["kernel"]
    stem = jnp.pad(stem, ((0, 0), (0, 0), (0, 1), (0, 0)))
    variables = {**variables, "params": {**variables["params"], "Conv_0": {"kernel": stem}}}

    def run(variables: Any, x: jax.Array) -> jax.Array:
        return model.apply(variables, jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, 1))))

    return compiled(run, variables, x), variables


def product_seconds(graph: reg.ChannelGraph, widths: Mapping[str, int]) -> dict[str, float]:
    """CPU seconds of all products, each timed alone, by the size of their kernel.

    Equal ones are timed once.
    """
    known: dict[Any, float] = {}
    found: dict[str, float] = {}
    for operation in graph.operations:
        shapes = [
            tuple(int(ax.size(axis, widths)) for axis in axes)
            for axes in (operation.lhs, operation.rhs)
        ]
        key = (operation.primitive, str(shapes), str(operation.params))
        if key not in known:
            operands = [jnp.ones(shape) for shape in shapes]
            program = compiled(partial(operation.primitive.bind, **operation.params), *operands)
            run = partial(program, *operands)
            run()
            known[key] = statistics.median(timed(run).cpu for _ in range(5))
        kernel = "x".join(map(str, shapes[1][:-2])) or "dense"
        found[kernel] = found.get(kernel, 0.0) + known[key]
    return found


def measure(batch: int, size: int, repeats: int) -> list[dict[str, Any]]:
    """All rows."""
    model = ResNet(BLOCKS)
    x = jax.random.normal(jax.random.key(0), (batch, size, size, 3))
    variables = random_variables(jax.eval_shape(model.init, jax.random.key(0), x))
    graph = reg.trace_channels(model.apply, variables, x)
    cost = reg.flops(graph)
    log("compiling")
    programs = {"seed": (compiled(model.apply, variables, x), variables)}
    kept = {"seed": graph.widths} | choices(graph.widths)
    for name in list(kept)[1:]:
        arch = morph.shrink(graph, alive(graph.widths, kept[name]))
        small = arch.take(variables)
        native = ResNet(BLOCKS, widths=arch.widths)
        programs[name] = (compiled(morph.compact(model.apply, arch), small, x), small)
        programs[f"{name}, native"] = (compiled(native.apply, small, x), small)
        ours, theirs = (programs[n][0](small, x) for n in (name, f"{name}, native"))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(abs(theirs).max()))
        log(f"compiled {name}")
    for name, net in (("seed", model), ("half", ResNet(BLOCKS, widths=kept["half"]))):
        programs[f"{name}, {PADDED}"] = padded(net, programs[name][1], x)
    runs = {name: partial(program, given, x) for name, (program, given) in programs.items()}
    times: dict[str, list[Any]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            times[name].append(timed(run))
        log(f"round {repeat} of {repeats}")
    times = {name: column[1:] for name, column in times.items()}  # the first warms up
    products = {}
    for name in ("seed", "half", "odd"):
        products[name] = product_seconds(graph, kept[name])
        log(f"products of {name}")
    return [row(name, times, cost, kept, products, programs) for name in runs]


def row(
    name: str,
    times: Mapping[str, list[Any]],
    cost: reg.Cost,
    kept: Mapping[str, Mapping[str, int]],
    products: Mapping[str, Mapping[str, float]],
    programs: Mapping[str, tuple[Any, Any]],
) -> dict[str, Any]:
    """What is said of one program."""
    widths, _, variant = name.partition(", ")
    reduction = float(cost()) / float(cost(kept[widths]))
    base = times[f"seed, {PADDED}" if variant == PADDED else "seed"]
    both = list(zip(base, times[name], strict=True))
    wall = statistics.median(seed.wall / own.wall for seed, own in both)
    cpu = statistics.median(seed.cpu / own.cpu for seed, own in both)
    against = zip(times[name], times.get(f"{widths}, native", times[name]), strict=True)
    alone = products.get(name, {})
    total = statistics.median(own.cpu for own in times[name])
    native = programs.get(f"{widths}, native", programs[name])[0]
    ours, theirs = opcodes(programs[name][0]), opcodes(native)
    return {
        "program": name,
        "seconds": statistics.median(own.wall for own in times[name]),
        "cpu_seconds": total,
        "flops_reduction": reduction,
        "speedup": wall,
        "cpu_speedup": cpu,
        "speedup_over_reduction": wall / reduction,
        "cpu_speedup_over_reduction": cpu / reduction,
        "cpu_seconds_over_native": statistics.median(a.cpu / b.cpu for a, b in against),
        "gflop_per_cpu_s": float(cost(kept[widths])) / total / 1e9,
        "products_s": sum(alone.values()) or None,
        "rest_s": total - sum(alone.values()) if alone else None,
        "instructions": sum(ours.values()),
        "instructions_unlike_native": {
            op: ours[op] - theirs[op] for op in sorted(ours | theirs) if ours[op] != theirs[op]
        },
        "products_s_by_kernel": dict(alone),
    }


def log(text: str) -> None:
    """Progress; stdout is for the result."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--out", help="write the table as JSON to this path")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.alone:
        print(json.dumps(measure(flags.batch, flags.size, flags.repeats)))
        return
    sizes = {"--batch": flags.batch, "--size": flags.size, "--repeats": flags.repeats}
    arguments = [str(part) for pair in sizes.items() for part in pair]
    rows = on_one_core(__file__, "--alone", *arguments)
    report(rows, flags.out, command="python benchmarks/speedup.py")


if __name__ == "__main__":
    main()
