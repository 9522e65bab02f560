"""A small GPT with all linear layers as 4-core MPOs, against the dense one at equal steps.

    taskset -c 1 python benchmarks/tensorize_gpt.py --out results/tensorize_gpt.json

Text: the files of Debian's package `fortunes`, as bytes; the last tenth of each file is held out.
The GPT has two blocks of width 192: 0.9 million parameters in its linear layers. Goal: at
least 5 times fewer parameters at a token accuracy of at most 1.5 points less (published for
Transformers of this kind: 5.3 times, 1.2 points).
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from fitting import fitted, size
from flax import linen as nn
from timing import report

from experiments.networks.gpt import GPT, dense
from morph.tensorize.flax.linen_layers import TTDense

FORTUNES = "/usr/share/games/fortunes"  # where Debian's package puts them
WIDTH, BLOCKS, HEADS, CONTEXT, BATCH = 192, 2, 6, 64, 8
# Bonds of the 4-core MPOs, by layer; cut to what a core's other axes can tell apart.
RANKS = {"qkv": 23, "out": 16, "up": 27, "down": 27, "head": 12}


def text(folder: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Train and test tokens, and how many kinds there are."""
    paths = sorted(path for path in Path(folder).iterdir() if not path.suffix)
    if not paths:
        raise FileNotFoundError(f"no fortunes in {folder}; install them: apt-get install fortunes")
    parts = [np.frombuffer(path.read_bytes(), np.uint8) for path in paths]
    used = np.unique(np.concatenate(parts))
    train = [part[: len(part) * 9 // 10] for part in parts]
    test = [part[len(part) * 9 // 10 :] for part in parts]
    return (
        np.searchsorted(used, np.concatenate(train)).astype(np.int32),
        np.searchsorted(used, np.concatenate(test)).astype(np.int32),
        len(used),
    )


def mpo(features: int, name: str, ranks: dict[str, int]) -> nn.Module:
    """A linear layer as MPO; at a thousand tokens a step its kernel is made dense first."""
    return TTDense(features, rank=ranks[name], mode="reconstructed", name=name)


def main() -> None:
    """Trains both, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning_rate", type=float, nargs=2, default=(2e-3, 2e-3))
    parser.add_argument("--only", choices=("dense", "mpo"), help="for tuning")
    parser.add_argument("--rank_factor", type=float, default=1.0, help="of all ranks, for tuning")
    parser.add_argument("--data_dir", default=FORTUNES)
    parser.add_argument("--out", help="write the table as JSON to this path")
    flags = parser.parse_args()
    train, test, tokens = text(flags.data_dir)
    tokens = -(-tokens // 16) * 16  # a prime number of them has no factors
    ranks = {name: round(flags.rank_factor * rank) for name, rank in RANKS.items()}
    rows: list[dict[str, Any]] = []
    kinds = {"dense": dense, "mpo": partial(mpo, ranks=ranks)}
    for (kind, linear), rate in zip(kinds.items(), flags.learning_rate, strict=True):
        if flags.only in (None, kind):
            model = GPT(tokens, WIDTH, BLOCKS, HEADS, CONTEXT, linear)
            rows.append({"layers": kind, **measure(model, train, test, flags, rate)})
            print(rows[-1], file=sys.stderr, flush=True)
    report(
        rows,
        flags.out,
        command=" ".join(["python", "benchmarks/tensorize_gpt.py", *sys.argv[1:]]),
        text=f"fortunes, {len(train):,} + {len(test):,} bytes",
        tokens=tokens,
        ranks=ranks,
        steps=flags.steps,
        tokens_per_step=BATCH * CONTEXT,
        **_goal(rows),
    )


def measure(
    model: GPT, train: np.ndarray, test: np.ndarray, flags: argparse.Namespace, rate: float
) -> dict[str, Any]:
    """Trains one network."""
    data = jnp.asarray(train)
    windows = len(test) // (CONTEXT + 1)
    held_out = jnp.asarray(test[: windows * (CONTEXT + 1)].reshape(windows, CONTEXT + 1))
    key = jax.random.key(flags.seed, impl="rbg")  # compiles faster for so many layers
    params = jax.jit(model.init)(key, held_out[:1, :-1])

    def logits_loss(params: Any, batch: Any) -> tuple[Any, Any]:
        logits, labels = model.apply(params, batch[:, :-1]), batch[:, 1:]
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return loss.mean(), (logits.argmax(-1) == labels).mean()

    def loss(params: Any, data: Any, key: Any) -> Any:
        starts = jax.random.randint(key, (BATCH, 1), 0, len(data) - CONTEXT - 1)
        return logits_loss(params, data[starts + jnp.arange(CONTEXT + 1)[None]])[0]

    @jax.jit
    def evaluate(params: Any, batches: Any) -> tuple[Any, Any]:
        found = jax.lax.map(partial(logits_loss, params), batches)
        return jax.tree.map(jnp.mean, found)

    groups = held_out[: windows // 64 * 64].reshape(-1, 64, CONTEXT + 1)
    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, flags.steps // 20, flags.steps)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, b2=0.98))
    found = fitted(loss, params, tx, data, key, flags.steps, chunk=100)
    test_loss, accuracy = map(float, evaluate(found, groups))
    kernels = [
        kernel
        for path, kernel in jax.tree_util.tree_leaves_with_path(params)
        if jax.tree_util.DictKey("kernel") in path
    ]
    return {
        "linear_parameters": size(kernels),
        "parameters": size(params),
        "learning_rate": rate,
        "test_loss": test_loss,
        "token_accuracy": accuracy,
    }


def _goal(rows: list[dict[str, Any]]) -> dict[str, float]:
    if len(rows) < 2:
        return {}
    one, other = rows
    return {
        "fewer_linear_parameters": one["linear_parameters"] / other["linear_parameters"],
        "fewer_parameters": one["parameters"] / other["parameters"],
        "points_less": 100 * (one["token_accuracy"] - other["token_accuracy"]),
    }


if __name__ == "__main__":
    main()
