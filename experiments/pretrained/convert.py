"""From the names and layouts of PyTorch to those of Flax Linen."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from experiments.pretrained.weights import WeightsError
from morph.network import Variables

Path: TypeAlias = tuple[str, ...]  # ("params", "layer", ..., "kernel")
Layout: TypeAlias = Callable[[np.ndarray], np.ndarray]
Rows: TypeAlias = dict[str, tuple[Path, Layout]]  # by PyTorch's name


def convert(
    tensors: Mapping[str, np.ndarray],
    rows: Mapping[str, tuple[Path, Layout]],
    module: nn.Module,
    example: jax.ShapeDtypeStruct,
    *,
    unused: Collection[str] = (),
) -> Variables:
    """Returns a module's variables from a state dict, of which nothing may be left over.

    Args:
        tensors: the state dict.
        rows: for each of its names, the path in the variables and the change of layout.
        module: whose variables these are to be.
        example: an input of the module.
        unused: names of the state dict that the module has no use for.

    Raises:
        WeightsError: if a tensor is missing, is left over, or is not of the module's shape.
    """
    names = tensors.keys() - set(unused)
    if names != rows.keys():
        raise WeightsError(
            f"{type(module).__name__} needs other tensors: missing are "
            f"{sorted(rows.keys() - names)}, not needed are {sorted(names - rows.keys())}."
        )
    found = {path: layout(tensors[name]) for name, (path, layout) in rows.items()}
    expected = flatten_dict(dict(jax.eval_shape(module.init, jax.random.key(0), example)))
    wrong = [
        f"{'/'.join(path)} {_shape(expected, path)}, found {_shape(found, path)}"
        for path in sorted(expected.keys() | found.keys())
        if _shape(expected, path) != _shape(found, path)
    ]
    if wrong:
        raise WeightsError(f"{type(module).__name__} has other shapes: {'; '.join(wrong)}.")
    return jax.device_put(unflatten_dict(found))


def _shape(arrays: Mapping[Path, Any], path: Path) -> tuple[int, ...] | None:
    return arrays[path].shape if path in arrays else None


def _same(array: np.ndarray) -> np.ndarray:
    return array


def dense_kernel(array: np.ndarray) -> np.ndarray:
    """[out, in] -> [in, out]."""
    return array.T


def conv_kernel(array: np.ndarray) -> np.ndarray:
    """[out, in, H, W] -> [H, W, in, out]."""
    return array.transpose(2, 3, 1, 0)


def after_flatten(channels: int, height: int, width: int) -> Layout:
    """The layout of a dense kernel that reads a map flattened as [C, H, W], not [H, W, C]."""

    def kernel(array: np.ndarray) -> np.ndarray:
        split = array.reshape(-1, channels, height, width)  # [out, C, H, W]
        return split.transpose(2, 3, 1, 0).reshape(-1, len(array))  # [H * W * C, out]

    return kernel


def dense(name: str, *path: str, layout: Layout = dense_kernel) -> Rows:
    """The rows of a `Linear`."""
    return {
        f"{name}.weight": (("params", *path, "kernel"), layout),
        f"{name}.bias": (("params", *path, "bias"), _same),
    }


def conv(name: str, *path: str, bias: bool = True) -> Rows:
    """The rows of a `Conv2d`, also one with groups."""
    rows = dense(name, *path, layout=conv_kernel)
    return rows if bias else {f"{name}.weight": rows[f"{name}.weight"]}


def layer_norm(name: str, *path: str) -> Rows:
    """The rows of a `LayerNorm`."""
    return {
        f"{name}.weight": (("params", *path, "scale"), _same),
        f"{name}.bias": (("params", *path, "bias"), _same),
    }


def batch_norm(name: str, *path: str) -> Rows:
    """The rows of a `BatchNorm2d`, without its count of batches."""
    return {
        **layer_norm(name, *path),
        f"{name}.running_mean": (("batch_stats", *path, "mean"), _same),
        f"{name}.running_var": (("batch_stats", *path, "var"), _same),
    }


def embedding(name: str, *path: str) -> Rows:
    """The row of an `Embedding`."""
    return {f"{name}.weight": (("params", *path, "embedding"), _same)}
