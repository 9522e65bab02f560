"""The names of seed networks, data sets and exports, for flags: reading them loads no JAX.

What they stand for is in `networks.SEED_NETWORKS`, `datasets.DATASETS` and `export.TARGETS`; a test
compares.
"""

from __future__ import annotations

SEED_NETWORKS = (
    "mlp", "lenet5", "cnn", "nnx_cnn", "resnet8", "resnet20", "hybrid", "towers", "inception",
    "inception_v2", "vit",
)  # fmt: skip
DATASETS = ("digits", "fashion_mnist", "mnist", "cifar10")
EXPORTS = ("stablehlo", "onnx", "onnx_int8", "tflite")
SHELLS = ("bash", "zsh")  # whose completion is known
