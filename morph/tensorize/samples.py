"""What the layers of a network take in: samples of a calibration batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from morph.kernels.patches import patches
from morph.tensorize.layers import KernelUse, run
from regularizers.channels.graph import ChannelGraph
from regularizers.primitives.jaxprs import primitives as p

SAMPLES = 8192  # of every use of a kernel, at most; drawn at random


def inputs_of(
    graph: ChannelGraph,
    values: Sequence[Any],
    roles: Mapping[str, str],
    *,
    most: int = SAMPLES,
) -> dict[str, np.ndarray]:
    """The rows that kernels multiply, by path.

    Kernels that a loop takes one by one, or that a batch has one each of, are left out; so are
    lookups, grouped convolutions, and other uses in which a kernel's axes have other roles.

    Args:
        graph: of the function; it is run once, at the traced shapes.
        values: its variables and inputs, flat.
        roles: of the kernels, by path.
        most: rows of each use; of the same places whatever the values are.

    Returns:
        For each float32 [samples, inputs]: the columns are the kernel's axes of roles `s` and `i`,
        in its own order.
    """
    found: dict[str, list[np.ndarray]] = {}

    def watch(path: str, use: KernelUse, operands: Sequence[Any]) -> None:
        if use.roles == roles.get(path) and is_seen(use, operands):
            rows = found.setdefault(path, [])
            rows.append(rows_of(use, operands, most=most, seed=len(rows)))

    run(graph, values, watch)
    return {path: np.concatenate(rows) for path, rows in found.items()}


def is_seen(use: KernelUse, operands: Sequence[Any]) -> bool:
    """Whether there are numbers that a kernel is multiplied with, and all of it with each."""
    traced = isinstance(operands[1 - use.side], jax.core.Tracer)  # inside of a loop
    lookup = use.eqn.primitive is p.gather_p
    return not (traced or "b" in use.roles or lookup or use.groups > 1)


def rows_of(
    use: KernelUse, operands: Sequence[Any], *, most: int = SAMPLES, seed: int = 0
) -> np.ndarray:
    """What one product or convolution multiplies a kernel's columns with; see `inputs_of`.

    Args:
        use: of the kernel.
        operands: of the equation.
        most: rows, drawn at random.
        seed: of the draw.
    """
    x, form = operands[1 - use.side], use.form
    axes, sizes, params = form.format.axes, form.sizes, use.eqn.params
    if use.eqn.primitive is p.dot_general_p:
        contracted, _ = params["dimension_numbers"]
        dims = contracted[1 - use.side]
        x = np.moveaxis(np.asarray(x), dims, range(x.ndim - len(dims), x.ndim))
        labels = [label for k in contracted[use.side] for label in axes[k]]
    else:
        numbers = params["dimension_numbers"]
        seen = patches(x, [form.shape[k] for k in numbers.rhs_spec[2:]], params)
        batch, _, *spatial = numbers.out_spec  # rows are as the axes of the result are, C last
        order = [batch, *spatial]
        x = np.asarray(seen)
        rest = range(len(order), x.ndim)
        x = x.transpose([*(order.index(k) for k in sorted(order)), *rest])
        labels = [label for k in numbers.rhs_spec[1:] for label in axes[k]]
    lengths = [sizes[label] for label in labels]
    x = x.reshape([-1, *lengths])
    x = np.flip(x, tuple(1 + k for k, n in enumerate(labels) if n in form.format.flipped))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(x))[:most])
    x = x[chosen].astype(np.float32)
    order = sorted(range(len(labels)), key=lambda k: int(labels[k].split(":")[1]))
    return x.transpose([0, *(1 + k for k in order)]).reshape([len(x), math.prod(lengths)])
