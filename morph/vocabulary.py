"""The names that settings may be, for flags and messages: reading them loads no JAX.

What they stand for is in tables beside the functions; `tests/test_vocabulary.py` compares.
"""

from __future__ import annotations

AUGMENTATIONS = ("flip", "crop", "cutout")
BASELINES = ("whole", "uniform")  # what a run trains besides
CLUSTERINGS = ("kmeans", "linear")
COMPRESSIONS = ("deep", "fixed", "prune", "ternary")
DISTRIBUTIONS = ("uniform", "erk", "global", "deviation")  # of sparsity
FORMATS = ("svd", "tucker2", "tucker", "cp", "tt")
AUTO, DENSE = "auto", "dense"
KINDS = (*FORMATS, AUTO, DENSE)  # of kernels
DECAY, THRESHOLD = "decay", "threshold"  # how channels are brought to go
GATE_MODES = ("annealed", "straight_through")
LOSSES = (
    "cross_entropy", "masked_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error",
    "mean_absolute_error", "cosine_distance",
)  # fmt: skip
METRICS = (
    "accuracy", "top5_accuracy", "log_likelihood", "masked_accuracy", "mean_iou",
    "explained_variance", "mean_squared_error", "mean_absolute_error", "cosine_similarity",
)  # fmt: skip
OPTIMIZERS = ("momentum", "sgd", "adam", "rmsprop", "adamw", "lamb", "lars", "lion")
PRECISIONS = ("float32", "bfloat16")  # that a step may compute in
TAUGHT = ("logits", "responses", "embeddings")
