"""Deep Compression of LeNet-300-100 and LeNet-5 on MNIST: bytes on disk (Han et al. 2016, table 1).

    taskset -c 1 python benchmarks/deep_compression.py --out results/deep_compression.json

For every network and seed: the pruned networks of benchmarks/pruning.py (in --keep; trained where
they are not there), weight sharing, retraining of what is shared, and a file. The file is read back
and compared bit for bit, and the error is that of what was read. Biases are shared, too. Sizes are
of the whole file: header, tables and checksum included; beside it the same network with Huffman
codes alone and with ANS alone, the entropy of all symbols, and zstandard (level 19) on the dense
codes and on the pruned weights in 32 bits. Settings were chosen with --validate, on the last 5,000
training images, with seed 0.
"""

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import zstandard
from pruning import RECIPES, VALIDATION, pruning, trained
from timing import report, write

from experiments import datasets
from experiments.models import network_of
from morph.compress.cluster import shared
from morph.compress.coding import container, table
from morph.compress.coding.leaves import encode
from morph.compress.training import accuracy_of, train
from morph.kernels.compressed import Shared, is_compressed, unpacked
from morph.network import Network, Variables
from morph.training.data import Batch
from morph.training.optimizers import rate_schedule

PAPER = {"mlp": (1.64, 1.58, 40), "lenet5": (0.80, 0.74, 39)}  # errors before, after; times smaller
LEVEL = 19  # of zstandard


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """How a network is shared.

    Attributes:
        stage: the state of benchmarks/pruning.py to start from.
        clusters: by pattern of parameters.
        steps: of training afterwards.
        rate: the highest learning rate, of Adam.
    """

    stage: str
    clusters: dict[str, int]
    steps: int
    rate: float


SHARINGS = {
    "mlp": Sharing(stage="16x", clusters={"*/kernel": 16, "*/bias": 16}, steps=4000, rate=3e-4),
    "lenet5": Sharing(
        stage="16x",
        clusters={"Conv_*/kernel": 32, "*/kernel": 12, "*/bias": 16},
        steps=1500,
        rate=3e-4,
    ),
}


def states(
    name: str, seed: int, network: Network, train_set: Batch, keep: Path, stage: str
) -> tuple[Variables, Variables]:
    """The float network and the pruned one; read, or trained and left for the next time."""
    files = [keep / f"{name}-{seed}-{kind}.morph" for kind in ("float", stage)]
    if not all(file.exists() for file in files):
        keep.mkdir(parents=True, exist_ok=True)
        recipe = RECIPES[name]
        start = trained(network, train_set, recipe, seed)
        container.save(files[0], start)
        for each, variables in pruning(network, start, train_set, recipe, seed):
            container.save(keep / f"{name}-{seed}-{each.name}.morph", variables)
            if each.name == stage:
                break
    return tuple(jax.tree.map(jnp.asarray, dict(container.load(file).variables)) for file in files)


def with_coder(variables: Variables, coder: str) -> int:
    """Bytes of the file if all symbols are coded one way."""
    return len(container.pack(variables, network=ABOUT, coder=coder))


ABOUT = {"dataset": "mnist"}


def entropy_bytes(variables: Variables) -> float:
    """Of all symbols and numbers, without tables and header."""
    leaves = jax.tree.leaves(variables, is_leaf=is_compressed)
    return sum(part.entropy for leaf in leaves for part in encode(leaf)[1]) / 8


def zstd(variables: Variables) -> int:
    """Bytes of the codes of shared weights, one byte each, and of all centroids, by zstandard."""
    leaves = jax.tree.leaves(variables, is_leaf=is_compressed)
    data = b"".join(
        np.asarray(leaf.centroids).tobytes() + np.asarray(leaf.codes).tobytes()
        if isinstance(leaf, Shared)
        else np.asarray(leaf).tobytes()
        for leaf in leaves
    )
    return len(zstandard.ZstdCompressor(level=LEVEL).compress(data))


def zstd_dense(variables: Variables) -> int:
    """Bytes of the weights in 32 bits, by zstandard."""
    data = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(unpacked(variables)))
    return len(zstandard.ZstdCompressor(level=LEVEL).compress(data))


def measure(
    name: str, seed: int, train_set: Batch, test_set: Batch, sharing: Sharing, keep: Path
) -> dict[str, Any]:
    """Shares and codes one network."""
    network = network_of(name, datasets.load("mnist"), 1.0)
    start, pruned = states(name, seed, network, train_set, keep, sharing.stage)
    params = shared(pruned["params"], sharing.clusters)
    variables, _ = train(
        network,
        {**pruned, "params": params},
        train_set,
        optax.adam(rate_schedule(sharing.rate, sharing.steps)),
        steps=sharing.steps,
        batch_size=RECIPES[name].batch_size,
        seed=seed + 9000,
    )
    file = keep / f"{name}-{seed}-deep.morph"
    size = container.save(file, variables, network=ABOUT)
    before = time.perf_counter()
    contents = container.load(file)
    seconds = time.perf_counter() - before
    if not container.same(contents.variables, variables):
        raise AssertionError(f"{file} is not what was written")
    weights = sum(leaf.size for leaf in jax.tree.leaves(start))

    def error(variables: Variables) -> float:
        return 100 * (1 - accuracy_of(network, variables, test_set))

    return {
        "network": name,
        "seed": seed,
        "float_error_percent": error(start),
        "pruned_error_percent": error(pruned),
        "shared_error_percent": error({**pruned, "params": params}),
        "error_percent": error(dict(contents.variables)),
        "float_bytes": 4 * weights,
        "bytes": size,
        "rate": 4 * weights / size,
        "huffman_bytes": with_coder(variables, "huffman"),
        "ans_bytes": with_coder(variables, "ans"),
        "entropy_bytes": round(entropy_bytes(variables)),
        "zstd_codes_bytes": zstd(variables),
        "zstd_pruned_bytes": zstd_dense(pruned),
        "decoded_mb_per_s": 4e-6 * weights / seconds,
        "layers": {
            row.path: {**asdict(row), "rate": row.rate}
            for row in table.layer_rows(contents.records)
        },
    }


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means and extremes over seeds, beside the paper."""
    found = []
    for name in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == name]
        errors = [row["error_percent"] for row in own]
        found.append(
            {
                "network": name,
                "seeds": len(own),
                "float_error_percent": statistics.mean(row["float_error_percent"] for row in own),
                "error_percent": statistics.mean(errors),
                "lowest": min(errors),
                "highest": max(errors),
                "bytes": statistics.mean(row["bytes"] for row in own),
                "rate": statistics.mean(row["rate"] for row in own),
                "paper_float_error": PAPER[name][0],
                "paper_error": PAPER[name][1],
                "paper_rate": PAPER[name][2],
            }
        )
    return found


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=list(SHARINGS), choices=SHARINGS)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--validate", action="store_true", help="count on training images left out")
    parser.add_argument("--keep", type=Path, default=Path("runs/lenets"), help="of pruning.py")
    parser.add_argument("--stage", help="instead of the chosen one")
    parser.add_argument("--clusters", type=json.loads, help="instead of the chosen ones")
    parser.add_argument("--rate", type=float, help="instead of the chosen one")
    parser.add_argument("--out", help="write the table as JSON to this path")
    flags = parser.parse_args()
    data = datasets.load("mnist")
    train_set = Batch(data.train_images, data.train_labels)
    test_set = Batch(data.test_images, data.test_labels)
    keep = flags.keep
    if flags.validate:
        test_set = Batch(*(part[-VALIDATION:] for part in train_set))
        train_set = Batch(*(part[:-VALIDATION] for part in train_set))
        keep = keep / "validated"
    given = {name: getattr(flags, name) for name in ("stage", "clusters", "rate")}
    given = {name: value for name, value in given.items() if value is not None}
    rows = []
    for name in flags.networks:
        sharing = replace(SHARINGS[name], **given)
        for seed in flags.seeds:
            rows.append(measure(name, seed, train_set, test_set, sharing, keep))
            print({key: value for key, value in rows[-1].items() if key != "layers"}, flush=True)
    sharings = {name: asdict(replace(SHARINGS[name], **given)) for name in flags.networks}
    if flags.out:
        write(rows, flags.out, sharings=sharings, validated=flags.validate, summary=summary(rows))
    report(rows, None)
    report(summary(rows), None)


if __name__ == "__main__":
    main()
