"""What the window of a convolution sees at each place of its result."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp


def patches(x: Any, window: Sequence[int], params: Mapping[str, Any]) -> jax.Array:
    """The data of a convolution, once for each place of its result.

    Args:
        x: the data.
        window: the kernel's sizes along spatial axes, in the order of the kernel's specification.
        params: of the equation, `lax.conv_general_dilated`; of one group.

    Returns:
        [N, *places, C, *window]: places in the order of the data's specification.
    """
    x = jnp.transpose(x, params["dimension_numbers"].lhs_spec)
    inside = zip(params["padding"], params["lhs_dilation"], strict=True)
    pads = [(0, 0, 0), (0, 0, 0), *((low, high, every - 1) for (low, high), every in inside)]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), pads)
    gaps, strides = params["rhs_dilation"], params["window_strides"]
    lengths = [n - gap * (size - 1) for n, gap, size in zip(x.shape[2:], gaps, window, strict=True)]
    seen = []
    for at in itertools.product(*map(range, window)):
        starts = [place * gap for place, gap in zip(at, gaps, strict=True)]
        ends = [start + length for start, length in zip(starts, lengths, strict=True)]
        seen.append(jax.lax.slice(x, [0, 0, *starts], [*x.shape[:2], *ends], [1, 1, *strides]))
    found = jnp.moveaxis(jnp.stack(seen, axis=-1), 1, -2)
    return found.reshape(*found.shape[:-1], *window)
