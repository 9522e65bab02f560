"""What a factorized kernel does where it meets a product or a lookup.

Each function takes an equation's parameters and its operands, and contracts core by core. It
returns None where it cannot; the kernel is then made dense.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from morph.kernels.contract import Labels, contract, joined
from morph.kernels.factorized import Factorized

Params = Mapping[str, Any]


def dot(params: Params, lhs: Any, rhs: Any) -> Any:
    """`dot_general` with a factorized kernel on either side; its axes may be contracted or batch.

    The axes of the other operand stay edges of the network, a batch too.
    """
    if isinstance(lhs, Factorized) and isinstance(rhs, Factorized):
        lhs = lhs.dense()
    side = 0 if isinstance(lhs, Factorized) else 1
    kernel, x = (lhs, rhs) if side == 0 else (rhs, lhs)
    contracted, batch = params["dimension_numbers"]
    axes, sizes = kernel.format.axes, dict(kernel.sizes)
    labels: list[Labels] = [(f"x{k}",) for k in range(x.ndim)]
    sizes.update((f"x{k}", n) for k, n in enumerate(x.shape))
    for dims in (contracted, batch):
        for a, b in zip(dims[side], dims[1 - side], strict=True):
            labels[b] = axes[a]
    free = [axes[a] for a in range(kernel.ndim) if a not in {*contracted[side], *batch[side]}]
    rest = [own for b, own in enumerate(labels) if own == (f"x{b}",)]
    out = [*(axes[a] for a in batch[side]), *(free + rest if side == 0 else rest + free)]
    with precision(params):
        result = contract(
            [x.reshape([sizes[n] for n in joined(labels)]), *kernel.cores],
            [joined(labels), *kernel.format.labels],
            joined(out),
        )
    return result.reshape([math.prod(sizes[n] for n in own) for own in out])


def lookup(params: Params, table: Any, indices: Any) -> Any:
    """`gather` of whole slices along one axis, as `jnp.take` and embeddings do.

    An index becomes one digit for each factor of the axis; every core is looked up with its own.
    """
    numbers = params["dimension_numbers"]
    if not isinstance(table, Factorized) or isinstance(indices, Factorized):
        return None
    axis = numbers.start_index_map[0]
    whole = tuple(1 if k == axis else n for k, n in enumerate(table.shape))
    if (
        numbers.start_index_map != (axis,)
        or numbers.collapsed_slice_dims != (axis,)
        or numbers.operand_batching_dims
        or tuple(params["slice_sizes"]) != whole
        or not table.format.axes[axis]
    ):
        return None
    rows, n, sizes = indices[..., 0], table.shape[axis], table.sizes
    stride, digits = n, {}
    for label in table.format.axes[axis]:
        stride //= sizes[label]
        digits[label] = jnp.clip(rows, 0, n - 1).reshape(-1) // stride % sizes[label]
    cores, labels = [], []
    for core, own in zip(table.cores, table.format.labels, strict=True):
        found = [label for label in own if label in digits]
        if len(found) > 1:
            return None
        if found:
            k = own.index(found[0])
            core = jnp.moveaxis(jnp.take(core, digits[found[0]], axis=k, mode="clip"), k, 0)
            own = ("n", *own[:k], *own[k + 1 :])
        cores.append(core)
        labels.append(own)
    rest = [own for k, own in enumerate(table.format.axes) if k != axis]
    out = contract(cores, labels, ("n", *joined(rest)))
    out = out.reshape([*rows.shape, *(math.prod(sizes[label] for label in own) for own in rest)])
    modes = jax.lax.GatherScatterMode
    if modes.from_any(params["mode"]) == modes.FILL_OR_DROP:
        fill = jnp.nan if params["fill_value"] is None else params["fill_value"]
        inside = ((rows >= 0) & (rows < n)).reshape([*rows.shape, *(1 for _ in rest)])
        out = jnp.where(inside, out, jnp.asarray(fill, out.dtype))
    order = [k for k in range(out.ndim) if k not in numbers.offset_dims] + [*numbers.offset_dims]
    return jnp.transpose(out, [order.index(k) for k in range(out.ndim)])


def precision(params: Params) -> contextlib.AbstractContextManager[Any]:
    """The precision that an equation asks of its products; XLA's own where it asks for none."""
    asked = params["precision"]
    asked = asked[0] if isinstance(asked, tuple) else asked
    if not isinstance(asked, jax.lax.Precision):
        return contextlib.nullcontext()
    return jax.default_matmul_precision(asked.name.lower())
