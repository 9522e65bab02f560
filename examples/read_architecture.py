"""Saves a learned architecture, reads the JSON, and rebuilds the network from it alone."""

import json
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp

import morph
import regularizers as reg
from experiments.networks import build


def main() -> None:
    model = build("resnet8", input_shape=(8, 8, 1), num_classes=10)
    x = jnp.ones((1, 8, 8, 1))
    network = morph.linen_network(model)
    abstract = jax.eval_shape(network.init, jax.random.key(0), x)  # no weights are needed
    graph = reg.trace_channels(network.predict, abstract, x)
    cost = reg.flops(graph)

    narrow = morph.expand(morph.Architecture.of_seed(graph), cost, budget=0.3 * cost())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "architecture.json"
        narrow.save(path)
        for layer in json.loads(path.read_text())["layers"]:
            widths = f"{layer['in']['width']:>3} -> {layer['out']['width']:<3}"
            print(f"{layer['path']:<32} {layer['op']:<6} {layer['kernel']!s:<8} {widths}")
        loaded = morph.Architecture.load(path)

    small = network.resized(loaded)
    variables = jax.jit(small.init)(jax.random.key(1, impl="rbg"), x)
    print("logits", small.predict(variables, x).shape, "width multiplier", loaded.width_multiplier)
    assert cost(loaded.widths) <= 0.3 * cost()


if __name__ == "__main__":
    main()
