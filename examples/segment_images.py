"""A small U-Net that segments images, shrunk to half of its FLOPs: outputs and labels are images.

    morph run --model=examples/segment_images.py:UNet \
        --data=examples/segment_images.py:data --loss=examples/segment_images.py:task \
        --metrics=mean_iou,masked_accuracy --budget=0.5

is what this file runs, with few steps. Pixels of label -1 are of no class, and do not count.
"""

import sys
import tempfile

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import morph
from experiments import run
from morph.training import classes_of, masked_cross_entropy

CLASSES = 3  # background, squares, discs


class UNet(nn.Module):
    """Two levels down, two up, with what each level saw beside what comes back to it."""

    widths: tuple[int, ...] = (8, 12, 16)

    @nn.compact
    def __call__(self, x, train: bool = False):
        def block(x, width):
            x = nn.Conv(width, (3, 3), use_bias=False)(x)
            return nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))

        seen = []
        for width in self.widths[:-1]:
            x = block(x, width)
            seen.append(x)
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = block(x, self.widths[-1])
        for width, before in zip(self.widths[-2::-1], reversed(seen), strict=True):
            x = nn.ConvTranspose(width, (2, 2), strides=(2, 2))(x)
            x = block(jnp.concatenate([before, x], -1), width)
        return nn.Conv(CLASSES, (1, 1))(x)  # [n, height, width, classes]


def data():
    """Images of squares and discs; the pixels around a shape are of no class."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:16, :16]
    images, labels = [], []
    for _ in range(256):
        label = np.zeros((16, 16), np.int32)
        for kind in (1, 2):
            (y, x), size = rng.integers(3, 13, 2), rng.integers(2, 4)
            power = np.inf if kind == 1 else 2
            away = np.linalg.norm(np.stack([rows - y, columns - x]), ord=power, axis=0)
            label[away < size + 1] = -1
            label[away < size] = kind
        image = np.where(label > 0, 1.0, 0.0) + rng.normal(scale=0.2, size=label.shape)
        images.append(image[..., None].astype(np.float32))
        labels.append(label)
    x, y = np.stack(images), np.stack(labels)
    return (x[:192], y[:192]), (x[192:], y[192:])


def loss(logits, batch):
    """Cross-entropy, and one less the Dice overlap of shapes: two terms."""
    told = jax.nn.softmax(logits)[..., 1:]
    true = jax.nn.one_hot(batch.y, CLASSES)[..., 1:]
    told = told * jnp.expand_dims(batch.y >= 0, -1)
    overlap = 2.0 * (told * true).sum((0, 1, 2)) / ((told + true).sum((0, 1, 2)) + 1.0)
    return {"cross_entropy": masked_cross_entropy(logits, batch.y), "dice": 1.0 - overlap.mean()}


def mirrored(key, batch):
    """Images and their labels, mirrored together."""
    turn = jax.random.bernoulli(key, 0.5, (batch.examples, 1, 1))
    x = jnp.where(jnp.expand_dims(turn, -1), batch.x[:, :, ::-1], batch.x)
    return morph.Batch(x, jnp.where(turn, batch.y[:, :, ::-1], batch.y))


task = morph.Task(loss=loss, augment=mirrored, decide=classes_of)

if __name__ == "__main__":
    here = __file__
    flags = [f"--model={here}:UNet", f"--data={here}:data", f"--loss={here}:task"]
    flags += ["--metrics=mean_iou,masked_accuracy"]
    flags += ["--seed_steps=60", "--shrink_steps=60", "--retrain_steps=20", "--batch_size=32"]
    sys.argv = ["segment_images.py", *flags, f"--workdir={tempfile.mkdtemp()}", *sys.argv[1:]]
    run.main(sys.argv)
