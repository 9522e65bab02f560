"""Compress: kernels of fewer bits, and files of them."""

from typing import TYPE_CHECKING

from regularizers.lazy import lazy

if TYPE_CHECKING:
    from morph.compress.cluster import clustered, shared
    from morph.compress.coding.container import Contents, load, pack, same, save, unpack
    from morph.compress.config import CompressConfig
    from morph.compress.curves import Sensitivity, sensitivity
    from morph.compress.fixed_point import FixedPoint, FixedPointCodes, equalized
    from morph.compress.fixed_point_closest import closest
    from morph.compress.methods import compressed
    from morph.compress.plan import FixedPointPlan, fixed_point_plan
    from morph.compress.pruning import finished, gradual, iterative, kept_counts, one_shot, pruned
    from morph.compress.sparsities import DISTRIBUTIONS, NOfM, given
    from morph.compress.ternary import ternarized
    from morph.compress.training import accuracy_of, train
    from morph.errors import ContainerError
    from morph.kernels.compressed import unpacked
else:
    __getattr__, __dir__ = lazy(__name__)

__all__ = [
    "DISTRIBUTIONS",
    "CompressConfig",
    "ContainerError",
    "Contents",
    "FixedPoint",
    "FixedPointCodes",
    "FixedPointPlan",
    "NOfM",
    "Sensitivity",
    "accuracy_of",
    "closest",
    "clustered",
    "compressed",
    "equalized",
    "finished",
    "fixed_point_plan",
    "given",
    "gradual",
    "iterative",
    "kept_counts",
    "load",
    "one_shot",
    "pack",
    "pruned",
    "same",
    "save",
    "sensitivity",
    "shared",
    "ternarized",
    "train",
    "unpack",
    "unpacked",
]
