"""Whether `auto` is as fast as the best way to evaluate a factorized layer, at any batch.

    python benchmarks/tensorize_speed.py --out results/tensorize_speed.json

Every layer is evaluated with `morph.tensorized`, in `auto` after `settled`, by a hand-written
`jnp.einsum` over its cores (optimal path), by a reconstruction written by hand, and dense, with the
kernel at hand. All are compiled, and timed in turn in one process; a row gives milliseconds (the
least of all rounds) and how `auto` compares with the best of the three that are not ours.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timing import report

import morph
from morph.kernels.factorized import Factorized
from morph.kernels.formats import FORMATS
from morph.kernels.tensorized import settled
from regularizers.calibration.timing import compiled, interleaved

BATCHES = (1, 32, 256, 1024)
# name: kind, shape, roles, options, ranks at most, side of the map (0 for none)
LAYERS: dict[str, tuple[str, tuple[int, ...], str, dict[str, Any], int, int]] = {
    "mpo 4096x4096, 4 cores, rank 8": ("tt", (4096, 4096), "io", {"cores": 4}, 8, 0),
    "mpo 1024x1024, 2 cores, rank 16": ("tt", (1024, 1024), "io", {"cores": 2}, 16, 0),
    "svd 1024x1024, rank 128": ("svd", (1024, 1024), "io", {}, 128, 0),
    "tucker2 3x3x64x64, rank 24": ("tucker2", (3, 3, 64, 64), "ssio", {}, 24, 14),
    "cp 3x3x64x64, rank 48": ("cp", (3, 3, 64, 64), "ssio", {}, 48, 14),
}


def layer(kind: str, shape: Any, roles: str, options: Any, rank: int) -> Factorized:
    """Random cores."""
    rng = np.random.default_rng(0)
    format, sizes = FORMATS[kind](shape, roles, **options)
    sizes = {n: min(size, rank) if n in format.bonds else size for n, size in sizes.items()}
    cores = [rng.standard_normal(core, np.float32) for core in format.core_shapes(sizes)]
    return Factorized(
        cores=tuple(jnp.asarray(core) / core.size**0.5 for core in cores), format=format
    )


def apply(kernel: Any, x: Any) -> Any:
    """The layer."""
    if kernel.ndim == 2:
        return x @ kernel
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def by_hand(kernel: Factorized) -> Callable[[Any, Any], Any] | None:
    """A product as one einsum over the cores, as a user would write it."""
    if kernel.ndim != 2:
        return None
    number = {label: k for k, label in enumerate(kernel.sizes)}
    sizes = kernel.sizes
    ins, outs = kernel.format.axes

    def multiply(cores: Any, x: Any) -> Any:
        operands: list[Any] = [x.reshape(-1, *(sizes[n] for n in ins)), [99, *map(number.get, ins)]]
        for core, own in zip(cores, kernel.format.labels, strict=True):
            operands += [core, [number[n] for n in own]]
        out = jnp.einsum(*operands, [99, *map(number.get, outs)], optimize="optimal")
        return out.reshape(len(x), -1)

    return multiply


def _of_leaves(fn: Callable[[Any, Any], Any], value: Any, x: Any) -> Any:
    """A function of the bare arrays, as the one written by hand is, and its arguments."""
    leaves, tree = jax.tree.flatten(value)
    return (lambda leaves, x: fn(jax.tree.unflatten(tree, leaves), x)), (leaves, x)


def row(name: str, batch: int, seconds: float) -> dict[str, Any]:
    """All ways of one layer at one batch."""
    kind, shape, roles, options, rank, side = LAYERS[name]
    kernel = layer(kind, shape, roles, options, rank)
    channels = shape[roles.index("i")]
    x = jnp.asarray(
        np.random.default_rng(1).standard_normal(
            (batch, side, side, channels) if side else (batch, channels), np.float32
        )
    )
    fastest = settled(apply, kernel, x)
    modes = {"factorized": kernel, "reconstructed": kernel, "auto": fastest}
    ways = {
        mode: _of_leaves(morph.tensorized(apply, mode=mode), value, x)
        for mode, value in modes.items()
    }
    if (hand := by_hand(kernel)) is not None:
        ways["einsum"] = hand, (kernel.cores, x)
    ways["reconstruct"] = _of_leaves(lambda kernel, x: apply(kernel.dense(), x), kernel, x)
    ways["dense"] = apply, (kernel.dense(), x)
    runs = [compiled(fn, *arguments) for fn, arguments in ways.values()]
    least = interleaved(runs, seconds=seconds, rounds=21).min(axis=1)
    found = dict(zip(ways, least.tolist(), strict=True))
    best = min(found[way] for way in ("einsum", "reconstruct", "dense") if way in found)
    return {
        "layer": name,
        "batch": batch,
        "settled": "factorized" if isinstance(fastest, Factorized) else "dense",
        "milliseconds": {way: round(1e3 * t, 4) for way, t in found.items()},
        "auto_over_best": round(found["auto"] / best, 3),
        "dense_over_auto": round(found["dense"] / found["auto"], 2),
    }


def main() -> None:
    """Times all layers at all batches."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out")
    parser.add_argument("--seconds", type=float, default=4.0, help="of every row, about")
    parser.add_argument("--batches", type=int, nargs="*", default=BATCHES)
    flags = parser.parse_args()
    rows = []
    for name in LAYERS:
        for batch in flags.batches:
            rows.append(row(name, batch, flags.seconds))
            print(rows[-1], flush=True)
    worst = max(own["auto_over_best"] for own in rows)
    print(f"auto over the best: at most {worst}")
    report(rows, flags.out, goal=1.1, worst=worst)


if __name__ == "__main__":
    main()
