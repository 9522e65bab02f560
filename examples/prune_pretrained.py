"""Prunes a trained network to 70 % of its FLOPs in one call, without training.

The network is a CNN that someone trained on MNIST; its weights and the pictures are brought by
`.ci/fetch_data`. The same from a shell, with a report:

    morph prune --model=experiments.pretrained.mnist_cnn:MNISTCNN --dataset=mnist \
        --start=experiments.pretrained.mnist_cnn:trained --budget=0.7
"""

import sys

import jax
import numpy as np
import optax

import morph
import regularizers as reg
from experiments import datasets
from experiments.pretrained import mnist_cnn


def main() -> None:
    try:
        model, variables = mnist_cnn.load()
        data = datasets.load("mnist")
    except morph.MorphError as error:  # it says where it looked, and what brings the files
        sys.exit(f"error: {error}")
    x, y = data.train_images[:512], data.train_labels[:512]
    batches = [(x[i : i + 32], y[i : i + 32]) for i in range(0, 512, 32)]

    def loss(variables, batch):
        logits = model.apply(variables, batch[0])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    graph = reg.trace_channels(model.apply, variables, x[:1])
    cost = reg.flops(graph)
    arch = morph.prune(graph, variables, cost, "70%", loss=loss, batches=batches)
    small, predict = arch.take(variables), jax.jit(morph.compact(model.apply, arch))

    def accuracy(predict, variables):
        right = [
            np.argmax(predict(variables, data.test_images[i : i + 500]), -1)
            == data.test_labels[i : i + 500]
            for i in range(0, len(data.test_labels), 500)
        ]
        return np.mean(right)

    print(arch)
    before, after = accuracy(jax.jit(model.apply), variables), accuracy(predict, small)
    share = cost(arch.widths) / cost()
    print(f"{share:.1%} of the FLOPs: {before:.2%} -> {after:.2%} on the test set")
    assert 0.693 <= share <= 0.7
    assert after >= 0.985


if __name__ == "__main__":
    main()
