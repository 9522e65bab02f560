"""The rows of the arena: which network on which data, trained how; alike for every contestant."""

from dataclasses import dataclass

HELD_OUT = 5_000  # training examples that choices are made on; nothing trains on them
BATCH = 64
WEIGHT_DECAY = 1e-4  # of kernels


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        dataset: `cifar10` or `fashion_mnist`.
        pool: images are means over squares of so many pixels.
        network: of `arena_jax.NETWORKS` and `arena_torch.NETWORKS`.
        steps: of training, in all, for every contestant.
        optimizer: `momentum` (0.9, Nesterov) or `adamw`.
        learning_rate: its peak, after a tenth of the steps; then a cosine to zero.
    """

    dataset: str
    pool: int
    network: str
    steps: int = 1200
    optimizer: str = "momentum"
    learning_rate: float = 0.1


ROWS = {
    "resnet8": Row("cifar10", 2, "resnet8"),
    "mlp": Row("fashion_mnist", 1, "mlp", learning_rate=0.03),
    "resnet20": Row("cifar10", 2, "resnet20"),
    "mobilenet": Row("cifar10", 2, "mobilenet"),
    "inception": Row("cifar10", 2, "inception"),
    "vit": Row("cifar10", 2, "vit", optimizer="adamw", learning_rate=2e-3),
    "resnet8-32": Row("cifar10", 1, "resnet8"),
    "resnet8-6000": Row("cifar10", 2, "resnet8", steps=6000),
    "mlp-6000": Row("fashion_mnist", 1, "mlp", steps=6000, learning_rate=0.03),
}
