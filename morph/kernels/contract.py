"""One contraction of several tensors, along the cheapest path."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import opt_einsum
import tensornetwork as tn
from tensornetwork.backends.jax.jax_backend import JaxBackend

Labels = tuple[str, ...]

_by_einsum: ContextVar[bool] = ContextVar("by_einsum", default=False)


@contextlib.contextmanager
def by_einsum() -> Iterator[None]:
    """Within it `jnp.einsum` contracts: a few small tensors it can multiply faster."""
    token = _by_einsum.set(True)
    try:
        yield
    finally:
        _by_einsum.reset(token)


def contract(tensors: Sequence[Any], labels: Sequence[Labels], out: Labels) -> Any:
    """The sum over all labels that are not in `out`, of the product of the tensors.

    The pairwise order is the one of the fewest multiplications (`opt_einsum`), with the axes of a
    batch among the edges: under `vmap` the path would be chosen without them. The path is asked for
    here and not by `tensornetwork.contractors.auto`, which keeps nodes in sets: from run to run it
    multiplies in another order, and rounds otherwise. Labels that more than two tensors share, as
    CP's rank, are no edge of a tensor network; `jnp.einsum` contracts those, along the same
    library's path.

    Args:
        tensors: arrays of JAX.
        labels: of each one's axes; no label twice in one tensor.
        out: of the result's axes.

    Example:
        >>> u, v = jnp.ones((2, 3)), jnp.ones((3, 5))
        >>> contract([u, v], [("i", "r"), ("r", "o")], ("i", "o")).shape
        (2, 5)
    """
    return _contracted(list(tensors), tuple(labels), out, _by_einsum.get())


@partial(jax.jit, static_argnums=(1, 2, 3), inline=True)
def _contracted(
    tensors: Sequence[Any], labels: tuple[Labels, ...], out: Labels, einsum: bool
) -> Any:
    """One program, also where nothing around is compiled."""
    counts = Counter(label for own in (*labels, out) for label in own)
    if len(tensors) == 1:
        return _moved(tensors[0], [labels[0].index(label) for label in out])
    if einsum or any(count != 2 for count in counts.values()):
        # Summed axes are multiplied in the order of their numbers: that of the kernel's, which
        # are the last tensors, so that they need not move.
        order = dict.fromkeys(label for own in (*labels[1:], *labels) for label in own)
        number = {label: i for i, label in enumerate(order)}
        operands: list[Any] = []
        for tensor, own in zip(tensors, labels, strict=True):
            operands += [tensor, [number[label] for label in own]]
        return jnp.einsum(*operands, [number[label] for label in out], optimize="optimal")
    nodes = [tn.Node(jnp.asarray(tensor), backend=_BACKEND) for tensor in tensors]
    ends: dict[str, list[tn.Edge]] = {}
    for node, own in zip(nodes, labels, strict=True):
        for edge, label in zip(node.edges, own, strict=True):
            ends.setdefault(label, []).append(edge)
    for edges in ends.values():
        if len(edges) == 2:
            tn.connect(*edges)
    sizes = sizes_of([tensor.shape for tensor in tensors], labels)
    for a, b in _path(labels, out, tuple(sizes.items())):
        node = tn.contract_between(nodes[a], nodes[b], allow_outer_product=True)
        nodes = [*(other for k, other in enumerate(nodes) if k not in (a, b)), node]
    edges = nodes[0].edges
    return _moved(nodes[0].tensor, [edges.index(ends[label][0]) for label in out])


class _Fused(JaxBackend):
    """JAX, with products of matrices: axes that stay neighbours are one axis while they move.

    XLA moves the many short axes of a tensor network one by one, and can need several times as long
    for that as for the product.
    """

    def tensordot(self, a: Any, b: Any, axes: Sequence[Sequence[int]]) -> Any:
        """`jnp.tensordot` over pairs of axes."""
        pairs = sorted(zip(*axes, strict=True), key=lambda pair: pair[int(b.size > a.size)])
        matrices, kept = [], []
        for side, tensor in enumerate((a, b)):
            summed = [pair[side] for pair in pairs]
            rest = [k for k in range(tensor.ndim) if k not in summed]
            kept.append([tensor.shape[k] for k in rest])
            last = [*rest, *summed] == list(range(tensor.ndim))
            first = not last and [*summed, *rest] == list(range(tensor.ndim))
            if not first:
                tensor = _moved(tensor, [*rest, *summed])
            shape = (math.prod(kept[-1]), math.prod(tensor.shape) // max(1, math.prod(kept[-1])))
            matrices.append((tensor.reshape(shape[::-1] if first else shape), 0 if first else 1))
        (left, i), (right, j) = matrices
        out = jax.lax.dot_general(left, right, (((i,), (j,)), ((), ())))
        return out.reshape([*kept[0], *kept[1]])


def _moved(tensor: Any, order: Sequence[int]) -> Any:
    """A transpose of runs of axes."""
    runs: list[list[int]] = []
    for k in order:
        if runs and runs[-1][-1] + 1 == k:
            runs[-1].append(k)
        else:
            runs.append([k])
    places = sorted(runs)
    fused = tensor.reshape([math.prod(tensor.shape[k] for k in run) for run in places])
    moved = jnp.transpose(fused, [places.index(run) for run in runs])
    return moved.reshape([tensor.shape[k] for k in order])


_BACKEND = _Fused()


@lru_cache(maxsize=4096)
def _path(
    labels: tuple[Labels, ...], out: Labels, sizes: tuple[tuple[str, int], ...]
) -> list[tuple[int, int]]:
    """The order of pairs. Labels become numbers, whose sets are in the same order in every run."""
    number = {label: k for k, (label, _) in enumerate(sizes)}
    inputs = [frozenset(number[label] for label in own) for own in labels]
    lengths = {number[label]: size for label, size in sizes}
    path = opt_einsum.paths.auto(inputs, frozenset(number[label] for label in out), lengths)
    return [(a, b) for a, b in path]


def sizes_of(shapes: Sequence[Sequence[int]], labels: Sequence[Labels]) -> Mapping[str, int]:
    """The length of every label."""
    return {
        label: size
        for shape, own in zip(shapes, labels, strict=True)
        for label, size in zip(own, shape, strict=True)
    }


def merged(tensor: Any, labels: Labels, groups: Sequence[Labels]) -> Any:
    """The tensor with its axes in the order of `groups`, each group as one axis.

    Example:
        >>> merged(jnp.ones((2, 3, 5)), ("a", "b", "c"), [("c",), (), ("b", "a")]).shape
        (5, 1, 6)
    """
    sizes = dict(zip(labels, tensor.shape, strict=True))
    order = [labels.index(label) for group in groups for label in group]
    lengths = [math.prod(sizes[label] for label in group) for group in groups]
    return jnp.transpose(tensor, order).reshape(lengths)


def joined(labels: Iterable[Labels]) -> Labels:
    """All of them in a row."""
    return tuple(label for own in labels for label in own)
