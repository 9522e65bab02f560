"""The MLP of TensorFlow's blog on tensor networks (2020): is its regression still solved?

    taskset -c 1 python benchmarks/tensorize_mlp.py --out results/tensorize_mlp.json

2 -> 1024 -> 1024 -> 1 with relus, whose middle layer is dense (1,053,697 parameters in all) or two
cores of 32 x 32 x 2 and a bias (9,217). Goal: a mean squared error below 1e-4 for both. Problems:

- `xor`: four clouds of 20 points around (±1, ±1), of deviation ¼, to the product of the signs;
- `waves`: sin(3x) cos(2y) + xy/2 on the square [-1, 1]², from 1024 points, tested on 1024 others.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from fitting import fitted, size
from flax import linen as nn
from timing import report

from morph.tensorize.flax.linen_layers import TTDense

WIDTH, BATCH, GOAL = 1024, 64, 1e-4
RATES = {"dense": 1e-3, "tt": 3e-3}  # at the start, of Adam
Points = tuple[np.ndarray, np.ndarray]  # [N, 2], [N]


def xor(rng: np.random.Generator) -> tuple[Points, Points]:
    """Train and test points, which are other clouds."""

    def draw() -> Points:
        centres = np.repeat([(1, 1), (-1, -1), (-1, 1), (1, -1)], 20, axis=0)
        return centres + rng.normal(0.0, 0.25, centres.shape), np.repeat([1.0, 1.0, -1.0, -1.0], 20)

    return draw(), draw()


def waves(rng: np.random.Generator) -> tuple[Points, Points]:
    """Train and test points."""

    def draw() -> Points:
        x, y = points = rng.uniform(-1, 1, (2, 1024))
        return points.T, np.sin(3 * x) * np.cos(2 * y) + x * y / 2

    return draw(), draw()


PROBLEMS: dict[str, Callable[[np.random.Generator], tuple[Points, Points]]] = {
    "xor": xor,
    "waves": waves,
}
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "dense": lambda: nn.Dense(WIDTH),
    "tt": lambda: TTDense(WIDTH, rank=2, cores=2, factors=((32, 32), (32, 32))),
}


def measure(problem: str, layer: str, seed: int, steps: int, rate: float) -> dict[str, Any]:
    """Trains one network."""
    train, test = (
        tuple(jnp.asarray(array, jnp.float32) for array in points)
        for points in PROBLEMS[problem](np.random.default_rng(seed))
    )
    middle = LAYERS[layer]()
    model = nn.Sequential([nn.Dense(WIDTH), nn.relu, middle, nn.relu, nn.Dense(1)])

    def error(params: Any, x: Any, y: Any) -> Any:
        return jnp.square(model.apply(params, x)[:, 0] - y).mean()

    def loss(params: Any, data: Any, key: Any) -> Any:
        x, y = data
        taken = jax.random.choice(key, len(x), (min(BATCH, len(x)),), replace=False)
        return error(params, x[taken], y[taken])

    key = jax.random.key(seed)
    params = model.init(key, train[0])
    tx = optax.adam(optax.cosine_decay_schedule(rate, steps))
    found = fitted(loss, params, tx, train, key, steps, chunk=steps // 4)
    mse, test_mse = (float(jax.jit(error)(found, *points)) for points in (train, test))
    return {
        "problem": problem,
        "layer": layer,
        "seed": seed,
        "parameters": size(params),
        "learning_rate": rate,
        "train_mse": mse,
        "test_mse": test_mse,
        "solved": mse < GOAL,
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--problems", nargs="*", default=list(PROBLEMS), choices=PROBLEMS)
    parser.add_argument("--layers", nargs="*", default=list(LAYERS), choices=LAYERS)
    parser.add_argument("--learning_rate", type=float, help="instead of those chosen")
    parser.add_argument("--out", help="write the table as JSON to this path")
    flags = parser.parse_args()
    rows = [
        measure(problem, layer, seed, flags.steps, flags.learning_rate or RATES[layer])
        for problem in flags.problems
        for layer in flags.layers
        for seed in range(flags.seeds)
    ]
    command = " ".join(["python", "benchmarks/tensorize_mlp.py", *sys.argv[1:]])
    report(rows, flags.out, command=command, steps=flags.steps, batch=BATCH, goal_mse=GOAL)


if __name__ == "__main__":
    main()
