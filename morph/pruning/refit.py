"""What is left takes over from what goes: least squares of each layer, on calibration batches.

Sources: Hassibi and Stork 1993, "Second order derivatives for network pruning: optimal brain
surgeon", for one layer's outputs, as in He et al. 2017, "Channel pruning for accelerating very deep
neural networks".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from morph.architecture.architecture import Architecture
from morph.pruning.products import Product, channels_along, products
from regularizers.channels.calls import flat_paths
from regularizers.channels.following import following
from regularizers.channels.graph import GRAPH, ChannelGraph
from regularizers.checks import FUNCTION, a, checked
from regularizers.errors import InputError
from regularizers.primitives import axes as ax

DAMPING = 0.01  # of the mean squared input: what keeps few examples from deciding all
ROUNDS = 12  # in about as many the channels of a group go, all but one
LEAST = 1e-30
BATCHES = a(Iterable, "batches for calibration, one after another")
ARCHITECTURE = a(Architecture, "a morph.Architecture, e.g. of morph.prune")


@checked(graph=GRAPH, architecture=ARCHITECTURE, fn=FUNCTION, batches=BATCHES)
def refit(
    graph: ChannelGraph,
    architecture: Architecture,
    variables: Any,
    *,
    fn: Callable[[Any, Any], Any],
    batches: Iterable[Any],
) -> Any:
    """The small network's variables, with what its layers lose made up for.

    A dense layer or convolution of which inputs go gets the kernel (and bias, or the mean of the
    batch norm behind it) that come closest to what it gave on the batches, from the inputs that
    stay; damped towards its own. Nothing is trained, and no label is read. Convolutions in groups,
    kernels that are used in other ways too, and those in loops stay as `architecture.take` gives
    them.

    Args:
        graph: of the network.
        architecture: what it becomes, e.g. of `morph.prune`; channels stay or go.
        variables: the network's weights.
        fn: `(variables, batch) -> anything`, that runs the network: a loss, or its outputs.
        batches: the calibration set. Have more examples (of tokens, or pixels) than a layer has
            inputs, several times.

    Returns:
        Variables, as `architecture.take(variables)` slices them.

    Raises:
        InputError: if there are no batches, or a channel has clones or none that it comes from.

    Example:
        >>> arch = morph.prune(graph, variables, cost, "80%", loss=loss, batches=batches)
        ...     # doctest: +SKIP
        >>> small = morph.refit(graph, arch, variables, fn=loss, batches=batches)
        ...     # doctest: +SKIP
    """
    parents = {name: np.asarray(group.parents) for name, group in architecture.groups.items()}
    for name, own in parents.items():
        if len(np.unique(own)) < len(own) or np.any(own < 0):
            raise InputError(
                f"refit: channels of group {name!r} are clones, or fresh; refit is for a network "
                "of which channels were only cut, as morph.prune and morph.shrink do"
            )
    known = list(batches)
    if not known:
        raise InputError("refit: the batches hold no data")
    leaves, _ = graph.leaves(variables)
    paths, found, treedef = flat_paths(architecture.take(variables))
    where = {path if path in leaves else f"params/{path}": i for i, path in enumerate(paths)}
    after = following(graph)
    for path, product in products(graph, fn, variables, known).items():
        if path not in where:  # its block is gone
            continue
        axes = graph.variables[path].axes
        kept = [ax.parent_positions(axis, parents, graph.widths) for axis in axes]
        stays = product.rows(kept)
        if len(stays) == product.size:
            continue
        places = np.ix_(
            *(
                np.arange(n) if k in product.inputs else kept[k]
                for k, n in enumerate(leaves[path].shape)
            )
        )
        matrix = product.matrix(np.asarray(leaves[path])[places])
        bias = where.get(after[path].bias) if path in after else None
        change, shift = made_up(product.moments, matrix, stays, shifted=bias is not None)
        kernel = found[where[path]]
        found[where[path]] = kernel + product.kernel(change, kernel.shape).astype(kernel.dtype)
        if bias is not None:
            shift = (after[path].sign * shift).reshape(found[bias].shape)
            found[bias] = found[bias] + shift.astype(found[bias].dtype)
    return jax.tree.unflatten(treedef, found)


def made_up(
    moments: np.ndarray, matrix: np.ndarray, stays: np.ndarray, *, shifted: bool
) -> tuple[np.ndarray, np.ndarray]:
    """By how much rows of a matrix change, and what it adds, where the other rows go.

    Args:
        moments: of the inputs, see `Product`.
        matrix: [m, n].
        stays: the rows that stay, [k].
        shifted: something can be added; else that is 0.

    Returns:
        [k, n] and [n].
    """
    goes = np.setdiff1d(np.arange(len(matrix)), stays)
    left = np.append(stays, len(matrix)) if shifted else stays
    own = moments[np.ix_(left, left)]
    own = own + np.diag(np.where(left < len(matrix), _damping(moments), 0.0))
    change = np.linalg.solve(own, moments[np.ix_(left, goes)] @ matrix[goes])
    return change[: len(stays)], change[len(stays) :].sum(axis=0)


def _damping(moments: np.ndarray) -> float:
    return DAMPING * float(np.diag(moments)[:-1].mean()) + LEAST


def strengths(
    graph: ChannelGraph,
    variables: Any,
    found: Mapping[str, Product],
    scores: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """How much the loss minds each channel if the others make up for it.

    Where channels of a group are inputs of one layer, and of nothing else that has weights, they go
    one after the other (a dozenth at a time) in the order of what then cannot be made up for; that
    is the strength of each. Its scale is that of the group's scores, without what is made up for.

    Args:
        graph: of the network.
        variables: its weights.
        found: its layers.
        scores: of each channel, by group; what other groups keep.
    """
    leaves, _ = graph.leaves(variables)
    made = dict(scores)
    for name, own in scores.items():
        consumers = {member.path for member in graph.groups[name].members if member.consumes}
        if len(consumers) != 1 or not consumers <= found.keys():
            continue
        (path,) = consumers
        product = found[path]
        channels = channels_along(graph.variables[path], product.inputs, graph.widths, name)
        matrix = product.matrix(leaves[path])
        alone = np.einsum("i,ij,ij->i", np.diag(product.moments)[:-1], matrix, matrix)
        alone = alone[channels].sum(axis=1)
        scale = np.exp(np.mean(np.log((own + LEAST) / (alone + LEAST))))
        made[name] = scale * _rises(product.moments[:-1, :-1], matrix, channels)
    return made


def _rises(moments: np.ndarray, matrix: np.ndarray, channels: np.ndarray) -> np.ndarray:
    """By how much the squared error rises as each channel goes; the strongest stays to the end.

    Args:
        moments: [m, m].
        matrix: [m, n].
        channels: [width, k]: the rows of each.
    """
    width, k = channels.shape
    inside = channels.reshape(-1)
    free = np.setdiff1d(np.arange(len(matrix)), inside)
    inverse = np.linalg.inv(moments + _damping(moments) * np.eye(len(moments)))
    order = np.concatenate([inside, free])
    inverse, matrix = inverse[np.ix_(order, order)], matrix[order]
    found, left, last = np.zeros(width), np.arange(width), 0.0
    while len(left):
        rows = np.arange(len(left) * k).reshape(-1, k)
        blocks = inverse[rows[:, :, None], rows[:, None, :]]  # [w, k, k]
        solved = np.linalg.solve(blocks, matrix[rows])
        errors = np.einsum("wkn,wkn->w", matrix[rows], solved)
        goes = np.argsort(errors)[: max(1, min(-(-width // ROUNDS), len(left) - 1))]
        last = np.maximum(last, errors[goes])
        found[left[goes]], last = last, float(last.max())
        out = rows[goes].reshape(-1)
        stay = np.setdiff1d(np.arange(len(matrix)), out)
        factor = np.linalg.solve(inverse[np.ix_(out, out)], inverse[np.ix_(out, stay)])
        matrix = matrix[stay] - factor.T @ matrix[out]
        inverse = inverse[np.ix_(stay, stay)] - inverse[np.ix_(stay, out)] @ factor
        left = np.delete(left, goes)
    return found
