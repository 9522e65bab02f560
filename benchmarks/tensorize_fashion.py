"""Fashion-MNIST with a first layer 784 -> 512 of two cores, against the dense one at equal steps.

    taskset -c 1 python benchmarks/tensorize_fashion.py --out results/tensorize_fashion.json

The layer is A[32, K, 28] and C[K, 16, 28] and a bias: a picture's rows by one core, its columns by
the other. With K = 1 it has 1,856 parameters against 401,920. Goal: within 0.5 points of the dense
network's test accuracy. What follows the layer is the same in both networks: relu and the logits,
or relu, a dense hidden layer of 512, relu and the logits.

Learning rates were chosen with --validate: trained on 50,000 pictures, accuracy on the other 10,000
of the train set.
"""

import argparse
import statistics
import sys
from typing import Any

import jax
import jax.numpy as jnp
import optax
from fitting import fitted, size
from flax import linen as nn
from timing import report

from experiments.datasets import load
from morph.tensorize.flax.linen_layers import TTDense

FEATURES, BATCH = 512, 128
FACTORS = ((28, 28), (32, 16))
RATES = {"dense": 1e-3, "tt": 3e-3}  # peak, of Adam


def measure(
    layer: str, hidden: int, seed: int, steps: int, rate: float, data: dict[str, Any]
) -> float:
    """Trains one network; returns its accuracy in percent."""
    model = network(layer, hidden)
    x, labels = data["train"]
    key = jax.random.key(seed)
    params = model.init(key, x[:1])

    def loss(params: Any, data: Any, key: Any) -> Any:
        x, labels = data
        taken = jax.random.randint(key, (BATCH,), 0, len(x))
        logits = model.apply(params, x[taken])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[taken]).mean()

    tx = optax.adam(optax.cosine_decay_schedule(rate, steps))
    found = fitted(loss, params, tx, (x, labels), key, steps, chunk=steps // 4)
    x, labels = data["test"]
    right = jax.jit(lambda params, x: model.apply(params, x).argmax(-1))(found, x) == labels
    return 100.0 * float(right.mean())


def network(layer: str, hidden: int) -> nn.Module:
    """The network; `layer` is `dense` or the rank K."""
    rest = [nn.Dense(hidden), nn.relu] if hidden else []
    return nn.Sequential([first(layer), nn.relu, *rest, nn.Dense(10)])


def first(layer: str) -> nn.Module:
    """The layer that is studied."""
    if layer == "dense":
        return nn.Dense(FEATURES)
    return TTDense(FEATURES, rank=int(layer), cores=2, factors=FACTORS)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--layers", nargs="*", default=["dense", "1", "2", "4", "8"])
    parser.add_argument("--hidden", nargs="*", type=int, default=[0, 512])
    parser.add_argument("--learning_rate", type=float, help="instead of the chosen ones")
    parser.add_argument("--validate", action="store_true", help="accuracy on pictures held out")
    parser.add_argument("--data_dir")
    parser.add_argument("--out", help="write the table as JSON to this path")
    flags = parser.parse_args()
    images = load("fashion_mnist", flags.data_dir)
    train = images.train_images.reshape(-1, 784), images.train_labels
    test = images.test_images.reshape(-1, 784), images.test_labels
    if flags.validate:
        train, test = tuple(part[:50_000] for part in train), tuple(part[50_000:] for part in train)
    data = {"train": tuple(map(jnp.asarray, train)), "test": tuple(map(jnp.asarray, test))}
    rows: list[dict[str, Any]] = []
    for hidden in flags.hidden:
        for layer in flags.layers:
            rate = flags.learning_rate or RATES["dense" if layer == "dense" else "tt"]
            accuracies = [
                measure(layer, hidden, seed, flags.steps, rate, data) for seed in range(flags.seeds)
            ]
            shapes = jax.eval_shape(network(layer, hidden).init, jax.random.key(0), train[0][:1])
            dense = next((row for row in rows if row["hidden"] == hidden), None)
            mean = statistics.mean(accuracies)
            rows.append(
                {
                    "hidden": hidden,
                    "layer": layer if layer == "dense" else f"K = {layer}",
                    "layer_parameters": size(shapes["params"]["layers_0"]),
                    "parameters": size(shapes),
                    "learning_rate": rate,
                    "accuracy": mean,
                    "spread": statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0,
                    "points_less": dense["accuracy"] - mean if dense else 0.0,
                    "accuracies": dict(enumerate(accuracies)),
                }
            )
            print(rows[-1], file=sys.stderr, flush=True)
    command = " ".join(["python", "benchmarks/tensorize_fashion.py", *sys.argv[1:]])
    report(rows, flags.out, command=command, steps=flags.steps, batch=BATCH)


if __name__ == "__main__":
    main()
