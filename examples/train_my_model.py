"""A model, data and a training of one's own, from a file like this one to a report.

The model is a Linen module with batch norm, the data are made here; `morph.Cycle` trains it,
shrinks it to half of its FLOPs, and goes on training. The same from a shell, with the same files:

    morph run --model=examples/train_my_model.py:Net \
        --data=examples/train_my_model.py:data --budget=0.5
"""

import sys
import tempfile
from pathlib import Path

import flax.linen as nn
import numpy as np

import morph
from experiments.console.display import Display
from experiments.report import write_report

CLASSES = 4


class Net(nn.Module):
    """Convolutions with batch norm and a residual, then a dense layer."""

    @nn.compact
    def __call__(self, x, train: bool = False):
        def normed(x):
            return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)

        x = nn.relu(normed(nn.Conv(16, (3, 3), use_bias=False)(x)))
        y = nn.relu(normed(nn.Conv(16, (3, 3), use_bias=False)(x)))
        x = nn.relu(x + normed(nn.Conv(16, (3, 3), use_bias=False)(y)))
        x = nn.relu(normed(nn.Conv(24, (3, 3), strides=2, use_bias=False)(x)))
        return nn.Dense(CLASSES)(x.mean((1, 2)))


def data() -> tuple[morph.Batch, morph.Batch]:
    """Images of a bar that lies, stands, or leans to either side, in noise."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, 640).astype(np.int32)
    images = rng.normal(scale=0.5, size=(640, 8, 8, 1)).astype(np.float32)
    along = np.arange(5)
    for image, label, corner in zip(images, labels, rng.integers(0, 3, (640, 2)), strict=True):
        rows = corner[0] + (along if label else 2)
        columns = corner[1] + [along, 2, along, along[::-1]][label]
        image[rows, columns, 0] += 2.0
    return morph.Batch(images[:512], labels[:512]), morph.Batch(images[512:], labels[512:])


CONFIG = morph.CycleConfig(
    budget=0.5,  # of the FLOPs; target="size", "here", ... pay for something else
    seed_steps=60,
    shrink_steps=80,
    retrain_steps=20,
    batch_size=32,
)


def main() -> None:
    train, test = data()
    workdir = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    with Display(budget_ratio=CONFIG.budget) as display:
        result = morph.Cycle(
            network=morph.linen_network(Net()),
            train=train,
            test=test,
            config=CONFIG,
            workdir=workdir,  # the same one resumes
            identity={"network": "Net", "data": "bars"},
            listener=display,
        ).run()
    seed, shrunk, tuned = result.outcomes
    print(
        {
            group: f"{one.seed_width} -> {one.width}"
            for group, one in result.architecture.groups.items()
        }
    )
    print(
        f"seed {seed.accuracy:.3f}, shrunk {shrunk.accuracy:.3f}, fine-tuned {tuned.accuracy:.3f}"
    )
    print(f"FLOPs {tuned.flops / seed.flops:.1%}; look at {write_report(workdir)}")
    assert tuned.flops <= 0.5 * seed.flops
    assert tuned.accuracy > 0.9
    logits = result.network.predict(result.variables, test.x[:3])  # an ordinary function
    assert logits.shape == (3, CLASSES)


if __name__ == "__main__":
    main()
