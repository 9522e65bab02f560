"""What the layers of a network are given on calibration batches: second moments of their inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from morph.compress.activations import run
from morph.kernels.patches import patches
from regularizers.channels.graph import ChannelGraph
from regularizers.channels.parts import Variable
from regularizers.primitives import axes as ax
from regularizers.primitives import jaxprs
from regularizers.primitives.jaxprs import JaxprEqn
from regularizers.primitives.jaxprs import primitives as p


@dataclass(frozen=True, kw_only=True)
class Product:
    """Where data meet a kernel.

    Attributes:
        inputs: the axes of the kernel that the data's channels lie along, in order.
        shape: of the kernel.
        moments: [m + 1, m + 1]: means of the products of two inputs, of the m there are and one
            that is always 1.
    """

    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    moments: np.ndarray

    @property
    def size(self) -> int:
        """How many inputs there are."""
        return len(self.moments) - 1

    def rows(self, kept: Sequence[np.ndarray]) -> np.ndarray:
        """The inputs that positions along all axes of the kernel are."""
        found = np.zeros(1, int)
        for k in self.inputs:
            found = (found[:, None] * self.shape[k] + kept[k][None]).reshape(-1)
        return found

    def matrix(self, kernel: Any) -> Float[np.ndarray, "m n"]:
        """A kernel as the matrix that its inputs are multiplied with."""
        moved = np.moveaxis(np.asarray(kernel, np.float64), self.inputs, range(len(self.inputs)))
        return moved.reshape(self.size, -1)

    def kernel(self, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The opposite of `matrix`, for a kernel of this shape."""
        count = len(self.inputs)
        others = [n for k, n in enumerate(shape) if k not in self.inputs]
        moved = matrix.reshape(*(shape[k] for k in self.inputs), *others)
        return np.moveaxis(moved, range(count), self.inputs)


def products(
    graph: ChannelGraph, fn: Callable[[Any, Any], Any], variables: Any, batches: Iterable[Any]
) -> dict[str, Product]:
    """The dense layers and convolutions of which inputs can go, by the path of the kernel.

    An input of a convolution is a channel at a place of its window. Left out are convolutions in
    groups, kernels that are used in any other way too, and those that a loop takes from a stack.

    Args:
        graph: of the network.
        fn: `(variables, batch) -> anything`, that runs it.
        variables: its weights.
        batches: the calibration set.
    """
    sums: dict[str, Any] = {}
    inputs: dict[str, tuple[int, ...]] = {}
    rows: dict[str, int] = {}
    other: set[str] = set()

    def meet(use: str, path: str, eqn: JaxprEqn, side: int, pair: list[Any]) -> Any:
        axes = _inputs(graph.variables[path], eqn, side, pair)
        if axes is None or isinstance(pair[1 - side], jax.core.Tracer):
            other.add(path)
        elif any(True for k in axes for _ in ax.groups_of(graph.variables[path].axes[k])):
            x = _as_rows(pair[1 - side], eqn, side)
            sums[path] = _moments(x) + sums.get(path, 0.0)
            rows[path] = rows.get(path, 0) + len(x)
            inputs[path] = axes
        return jaxprs.rebind(eqn, pair)[0]

    leaves, _ = graph.leaves(variables)
    for batch in batches:
        closed = jax.make_jaxpr(fn)(variables, batch)
        run(closed, list(leaves), [*leaves.values(), *jax.tree.leaves(batch)], meet)
    return {
        path: Product(
            inputs=inputs[path],
            shape=graph.variables[path].shape,
            moments=np.asarray(total, np.float64) / rows[path],
        )
        for path, total in sums.items()
        if path not in other
    }


def _inputs(variable: Variable, eqn: JaxprEqn, side: int, pair: list[Any]) -> Any:
    """The axes of a kernel that a product sums over, if it is no other kind of use."""
    if pair[side].shape != variable.shape:
        return None
    if eqn.primitive is p.conv_general_dilated_p:
        _, channels, *window = eqn.params["dimension_numbers"].rhs_spec
        grouped = eqn.params["feature_group_count"] > 1 or eqn.params["batch_group_count"] > 1
        found = (channels, *window)
        apart, summed = grouped or side == 0, frozenset({channels})
    else:
        contracted, batched = eqn.params["dimension_numbers"]
        found = tuple(sorted(contracted[side]))
        apart, summed = bool(batched[side]), frozenset(found)
    if apart or not summed <= variable.consumes or summed & variable.produces:
        return None
    return found


def _as_rows(x: Array, eqn: JaxprEqn, side: int) -> Float[Array, "n m"]:
    """Data with the inputs of a kernel as the last axis, in the kernel's order."""
    if eqn.primitive is p.conv_general_dilated_p:
        kernel = jaxprs.shape_of(eqn.invars[1])
        window = [kernel[k] for k in eqn.params["dimension_numbers"].rhs_spec[2:]]
        seen = patches(x, window, eqn.params)
        return seen.reshape(-1, int(np.prod(seen.shape[1 + len(window) :])))
    (summed, _) = eqn.params["dimension_numbers"]
    axes = [summed[1 - side][i] for i in np.argsort(summed[side])]
    moved = jnp.moveaxis(x, axes, range(-len(axes), 0))
    return moved.reshape(-1, int(np.prod([x.shape[k] for k in axes])))


@jax.jit
def _moments(x: Float[Array, "n m"]) -> Float[Array, "m+1 m+1"]:
    x = jnp.concatenate([x.astype(jnp.float32), jnp.ones((len(x), 1))], axis=1)
    return x.T @ x


def channels_along(
    variable: Variable, inputs: tuple[int, ...], widths: Mapping[str, int], name: str
) -> np.ndarray:
    """For each channel of a group, which inputs of a matrix it is: int [width, per channel].

    Raises:
        ValueError: if some channel is more inputs than another.
    """
    found = []
    for k in range(len(variable.axes)):
        if k not in inputs:
            continue
        axis = variable.axes[k]
        own = {
            other: np.arange(n) if other == name else np.full(n, -1)
            for other, n in widths.items()
        }  # fmt: skip
        found.append(ax.spread(axis, own, lambda n: np.full(n, -1), np.maximum))
    grid = found[0]
    for more in found[1:]:
        grid = np.maximum(grid[..., None], more)
    flat = grid.reshape(-1)
    order = np.argsort(flat, kind="stable")[np.sum(flat < 0) :]
    return order.reshape(widths[name], -1)
