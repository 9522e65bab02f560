"""Weight sharing: kernels whose weights take few values (Han et al. 2016, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from morph.errors import need
from morph.kernels.compressed import Pruned, Shared, is_compressed
from morph.vocabulary import CLUSTERINGS
from regularizers.channels.calls import joined_path
from regularizers.checks import ARRAY, NAME, by_name, checked, whole
from regularizers.errors import InputError
from regularizers.patterns import matching, spells

_missing: ModuleNotFoundError | None = None
try:
    import ckwrap
except ModuleNotFoundError as error:
    _missing = error


@checked(weights=ARRAY, count=whole(least=1), method=NAME)
def clustered(
    weights: Float[np.ndarray, " n"], count: int, *, method: str = "kmeans"
) -> tuple[Float[np.ndarray, " k"], Int[np.ndarray, " n"]]:
    """Weights in groups of about equal value.

    Args:
        weights: finite.
        count: how many groups; fewer where there are fewer different weights.
        method: `kmeans` has the least sum of squares there is, by dynamic programming (Wang and
            Song 2011, Ckmeans.1d.dp); `linear` starts at equal distances between the least and the
            largest weight and goes on as Lloyd does: what Han et al. found best of the starts that
            they tried.

    Returns:
        The mean of every group, increasing, and the group of every weight.

    Raises:
        ValueError: if the method or the count is none, or a weight is not finite.

    Example:
        >>> clustered(np.array([1.0, 5.0, 1.5, 5.5]), 2)
        (array([1.25, 5.25]), array([0, 1, 0, 1]))
    """
    if method not in CLUSTERINGS:
        raise InputError(f"method must be one of {', '.join(CLUSTERINGS)}, found {method!r}")
    values = np.asarray(weights, np.float64)
    if not np.isfinite(values).all():
        raise InputError("weights to be shared hold NaN or infinite values")
    count = min(count, len(np.unique(values)))
    if not count:
        return np.zeros(0), np.zeros(0, np.int64)
    groups = (_exact if method == "kmeans" else _lloyd)(values, count)
    _, groups = np.unique(groups, return_inverse=True)  # without empty ones
    means = np.bincount(groups, values) / np.bincount(groups)
    order = np.argsort(means)
    return means[order], np.argsort(order)[groups]


def _exact(values: np.ndarray, count: int) -> np.ndarray:
    need("exact k-means", _missing, "compress")
    return np.asarray(ckwrap.ckmeans(values, count).labels)


def _lloyd(values: np.ndarray, count: int) -> np.ndarray:
    """On sorted values groups are ranges, and their sums differences of running sums."""
    order = np.argsort(values)
    ordered = values[order]
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    centers, edges = np.linspace(ordered[0], ordered[-1], count), np.zeros(0, np.int64)
    while True:
        cuts = np.searchsorted(ordered, (centers[1:] + centers[:-1]) / 2, side="right")
        new = np.concatenate([[0], cuts, [len(values)]])
        sizes = np.diff(new)
        if np.array_equal(new, edges):
            break
        means = np.diff(sums[new]) / np.maximum(sizes, 1)
        edges, centers = new, np.sort(np.where(sizes > 0, means, centers))
    groups = np.empty(len(values), np.int64)
    groups[order] = np.repeat(np.arange(count), sizes)
    return groups


def share(kernel: Any, count: int, *, method: str = "kmeans") -> Shared:
    """A kernel of shared weights; zeros and what is pruned stay zero, beside the clusters.

    Args:
        kernel: an array or `Pruned`.
        count: of clusters, besides zero.
        method: see `clustered`.

    Raises:
        ValueError: as `clustered` does.
    """
    array = np.asarray(kernel.dense() if isinstance(kernel, Pruned) else kernel)
    used = array != 0
    means, groups = clustered(array[used], count, method=method)
    codes = np.zeros(array.shape, np.uint8 if len(means) < 256 else np.uint16)
    codes[used] = groups + 1
    return Shared(centroids=jax.numpy.asarray(means, array.dtype), codes=jax.numpy.asarray(codes))


def paths_of(params: Any) -> list[str]:
    """The paths of parameters; of a compressed kernel its own."""
    entries, _ = jax.tree_util.tree_flatten_with_path(params, is_leaf=is_compressed)
    return [joined_path(path) for path, _ in entries]


@checked(clusters=by_name(whole(least=0), "whole numbers of at least 0 by pattern"), method=NAME)
def shared(params: Any, clusters: Mapping[str, int], *, method: str = "kmeans") -> Any:
    """Parameters of which some are shared.

    Args:
        params: arrays and `Pruned` kernels.
        clusters: how many of each parameter, by pattern of its path; the first that matches wins;
            what matches none, and where it is 0, stays as it is.
        method: see `clustered`.

    Raises:
        ValueError: as `clustered` does, with the path; or if a pattern matches nothing.

    Example:
        >>> shared(params, {"Conv_*/kernel": 256, "*/kernel": 32})  # doctest: +SKIP
    """
    paths, leaves = paths_of(params), []
    matching(list(clusters), paths, "clusters")
    entries, tree = jax.tree.flatten(params, is_leaf=is_compressed)
    for path, leaf in zip(paths, entries, strict=True):
        count = next((n for pattern, n in clusters.items() if spells(pattern, path)), 0)
        try:
            leaves.append(share(leaf, count, method=method) if count else leaf)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    return jax.tree.unflatten(tree, leaves)
