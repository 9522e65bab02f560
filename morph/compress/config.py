"""How a network is compressed: the settings."""

from __future__ import annotations

from dataclasses import dataclass

from morph.settings import check_settings, documented, setting
from morph.vocabulary import CLUSTERINGS, COMPRESSIONS, DISTRIBUTIONS, OPTIMIZERS


@documented
@dataclass(frozen=True, kw_only=True)
class CompressConfig:
    """How a network is compressed.

    Raises:
        ConfigError: naming the setting that cannot be.
    """

    compress: str = setting(
        "deep",
        help="The method. deep: prune, share weights and code (Deep Compression); prune: only "
        "prune; fixed: dynamic fixed point; ternary: trained ternary quantization.",
        choices=COMPRESSIONS,
    )
    compress_steps: int = setting(
        600, help="Training steps in all, divided among the stages.", range="[1, inf)"
    )
    compress_learning_rate: float = setting(1e-3, help="Peak learning rate of each stage.")
    compress_optimizer: str = setting(
        "adam",
        help="The optimizer; its learning rate has warm-up and cosine decay, weights do not decay.",
        choices=OPTIMIZERS,
    )
    compress_batch_size: int = setting(64, help="Examples per step.", range="[1, inf)")
    compress_seed: int = setting(0, help="The random seed of the order of examples.")
    sparsity: float = setting(
        0.8,
        help="The share of weights that --compress=deep and prune remove.",
        range="[0, 1)",
    )
    distribution: str = setting(
        "global", help="How the sparsity is distributed over layers.", choices=DISTRIBUTIONS
    )
    clusters: str = setting(
        "16",
        help="How many values the weights of a kernel share; or per pattern of parameters, of "
        "which the first that matches is used: Conv_*/kernel=64,*/kernel=16,*/bias=16.",
    )
    clustering: str = setting(
        "kmeans",
        help="kmeans: optimal clusters; linear: Lloyd's algorithm from equally spaced values.",
        choices=CLUSTERINGS,
    )
    word_length: int = setting(8, help="Bits per number of --compress=fixed.")
    threshold: float = setting(
        0.05,
        help="With --compress=ternary, weights below this share of their kernel's largest weight "
        "become zero.",
    )
    keep: str = setting(
        "first,last",
        help="Kernels that --compress=ternary keeps as floats: first, last, and patterns.",
    )

    def __post_init__(self) -> None:
        """Refuses what cannot be."""
        check_settings(self)
