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
        help="deep: prune, share weights and code; prune; fixed: dynamic fixed point; ternary.",
        choices=COMPRESSIONS,
    )
    compress_steps: int = setting(
        600, help="Training steps in all, divided among the stages.", range="[1, inf)"
    )
    compress_learning_rate: float = setting(1e-3, help="Peak learning rate of each stage.")
    compress_optimizer: str = setting(
        "adam",
        help="With warm-up and cosine decay of the learning rate, without decay.",
        choices=OPTIMIZERS,
    )
    compress_batch_size: int = setting(64, help="Examples per step.", range="[1, inf)")
    compress_seed: int = setting(0, help="Of the order of examples.")
    sparsity: float = setting(
        0.8,
        help="The share of weights that --compress=deep and prune take away.",
        range="[0, 1)",
    )
    distribution: str = setting(
        "global", help="Of the sparsity among layers.", choices=DISTRIBUTIONS
    )
    clusters: str = setting(
        "16",
        help="Values that the weights of a kernel share; or per pattern of parameters, of which "
        "the first that matches wins: Conv_*/kernel=64,*/kernel=16,*/bias=16.",
    )
    clustering: str = setting(
        "kmeans",
        help="kmeans: the best there is; linear: Lloyd's from equal distances.",
        choices=CLUSTERINGS,
    )
    word_length: int = setting(8, help="Bits of the numbers of --compress=fixed.")
    threshold: float = setting(
        0.05,
        help="Of --compress=ternary: the share of a kernel's largest weight below which weights "
        "are zero.",
    )
    keep: str = setting(
        "first,last",
        help="Kernels that --compress=ternary leaves float: first, last, and patterns.",
    )

    def __post_init__(self) -> None:
        """Refuses what cannot be."""
        check_settings(self)
