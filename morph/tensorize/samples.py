"""What the layers of a network take in: samples of a calibration batch."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from morph.tensorize.layers import KernelUse, run
from regularizers.channels.graph import ChannelGraph
from regularizers.channels.jaxprs import primitives as p

SAMPLES = 8192  # of every use of a kernel, at most; drawn at random


def inputs_of(
    graph: ChannelGraph,
    variables: Sequence[Any],
    inputs: Sequence[Any],
    paths: Collection[str],
    *,
    most: int = SAMPLES,
) -> dict[str, np.ndarray]:
    """The rows that kernels multiply, by path.

    Args:
        graph: of the function; it is run once, at the traced shapes.
        variables: its leaves, in order.
        inputs: its other arrays, of the traced shapes.
        paths: of the kernels.
        most: rows of each use; of the same places whatever the variables are.

    Returns:
        For each [samples, inputs]: the columns are the kernel's axes of roles `s` and `i`, in its
        own order.
    """
    found: dict[str, list[np.ndarray]] = {}

    def watch(path: str, use: KernelUse, operands: Sequence[Any]) -> None:
        if path in paths and use.eqn.primitive is not p.gather_p:
            rows = rows_of(use, operands[1 - use.side])
            rng = np.random.default_rng(len(found.setdefault(path, [])))
            chosen = np.sort(rng.permutation(len(rows))[:most])
            found[path].append(np.asarray(rows[chosen], np.float64))

    run(graph, [*variables, *inputs], watch)
    return {path: np.concatenate(rows) for path, rows in found.items()}


def rows_of(use: KernelUse, x: Any) -> Any:
    """What one product or convolution multiplies a kernel's columns with, [samples, inputs]."""
    form = use.form
    axes, sizes = form.format.axes, form.sizes
    if use.eqn.primitive is p.dot_general_p:
        (contracted, _batch) = use.eqn.params["dimension_numbers"]
        dims = contracted[1 - use.side]
        x = jnp.moveaxis(x, dims, range(x.ndim - len(dims), x.ndim))
        labels = [label for k in contracted[use.side] for label in axes[k]]
    else:
        params = use.eqn.params
        numbers = params["dimension_numbers"]
        x = jax.lax.conv_general_dilated_patches(
            x,
            [form.shape[k] for k in numbers.rhs_spec[2:]],
            params["window_strides"],
            params["padding"],
            params["lhs_dilation"],
            params["rhs_dilation"],
            dimension_numbers=numbers,
            precision=jax.lax.Precision.HIGHEST,
        )
        x = jnp.moveaxis(x, numbers.out_spec[1], -1)
        labels = [label for k in numbers.rhs_spec[1:] for label in axes[k]]
    x = x.reshape([-1, *(sizes[label] for label in labels)])
    order = sorted(range(len(labels)), key=lambda k: int(labels[k].split(":")[1]))
    x = jnp.transpose(x, [0, *(1 + k for k in order)])
    return x.reshape([len(x), math.prod(x.shape[1:])])
