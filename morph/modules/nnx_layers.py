"""NNX: a module of the same class, with sliced variables and the attributes that follow them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from flax.core import FrozenDict

from morph.architecture.architecture import Architecture
from morph.modules.widths import Changes, Layers, LayerWidths, Row, attributes_now, by_layer
from regularizers.nnx import collections_of, leaves_at, nnx_function


def linear(layer: nnx.Linear, widths: LayerWidths) -> dict[str, Any]:
    """Kernel [in, out]."""
    inputs, outputs = widths.shape("kernel")[-2:]
    return {"in_features": inputs, "out_features": outputs}


def linear_general(layer: nnx.LinearGeneral, widths: LayerWidths) -> dict[str, Any]:
    """Kernel [*batch, *in, *out]."""
    batch, inputs = len(layer.batch_axis), len(layer.in_features)
    shape = widths.shape("kernel")[-batch - inputs - len(layer.out_features) :]
    return {
        "in_features": shape[batch : batch + inputs],
        "out_features": shape[batch + inputs :],
        "batch_axis": FrozenDict(zip(layer.batch_axis, shape[:batch], strict=True)),
    }


def einsum(layer: nnx.Einsum, widths: LayerWidths) -> dict[str, Any]:
    """Kernel and bias as they are."""
    found = {"kernel_shape": widths.shape("kernel")[-len(layer.kernel_shape) :]}
    if layer.bias_shape is not None:
        found["bias_shape"] = widths.shape("bias")[-len(layer.bias_shape) :]
    return found


def conv(layer: nnx.Conv, widths: LayerWidths) -> dict[str, Any]:
    """Kernel [*window, in / groups, out]."""
    shape = widths.shape("kernel")[-len(layer.kernel_shape) :]
    groups = widths.outer(layer.feature_group_count, "kernel")
    return {
        "kernel_shape": shape,
        "in_features": shape[-2] * groups,
        "out_features": shape[-1],
        "feature_group_count": groups,
    }


def conv_transpose(layer: nnx.ConvTranspose, widths: LayerWidths) -> dict[str, Any]:
    """Kernel [*window, in, out]; [*window, out, in] if it is a convolution's, transposed."""
    shape = widths.shape("kernel")[-len(layer.kernel_shape) :]
    inputs, outputs = shape[:-3:-1] if layer.transpose_kernel else shape[-2:]
    return {"kernel_shape": shape, "in_features": inputs, "out_features": outputs}


def embed(layer: nnx.Embed, widths: LayerWidths) -> dict[str, Any]:
    """Table [embeddings, features]."""
    count, features = widths.shape("embedding")[-2:]
    return {"num_embeddings": count, "features": features}


def norm(layer: Any, widths: LayerWidths) -> dict[str, Any]:
    """One number per feature."""
    return {"num_features": widths.shape("mean", "scale", "bias")[-1]}


def group_norm(layer: nnx.GroupNorm, widths: LayerWidths) -> dict[str, Any]:
    """One number per feature, in `num_groups` stretches of `group_size`."""
    groups = widths.outer(layer.num_groups, "scale", "bias")
    features = widths.shape("scale", "bias")[-1]
    return {"num_groups": groups, "group_size": features // groups}


def attention(layer: nnx.MultiHeadAttention, widths: LayerWidths) -> dict[str, Any]:
    """Query, key and value kernels [in, heads, width of a head], out kernel [heads, width, out]."""
    inputs, heads, width = widths.shape("query/kernel")[-3:]
    kv_inputs, kv_heads, _ = widths.shape("key/kernel")[-3:]
    return {
        "num_heads": heads,
        "in_features": inputs,
        "qkv_features": heads * width,
        "out_features": widths.shape("out/kernel")[-1],
        "in_kv_features": kv_inputs,
        "num_kv_heads": kv_heads,
        "head_dim": width,
    }


def lstm(layer: nnx.LSTMCell, widths: LayerWidths) -> dict[str, Any]:
    """One kernel [in, hidden] per gate."""
    inputs, hidden = widths.shape("ii/kernel")[-2:]
    return {"in_features": inputs, "hidden_features": hidden}


def recurrent(layer: Any, widths: LayerWidths) -> dict[str, Any]:
    """One kernel [in, gates x hidden] and one [hidden, gates x hidden]."""
    inputs, hidden = widths.shape("dense_i/kernel")[-2], widths.shape("dense_h/kernel")[-2]
    return {"in_features": inputs, "hidden_features": hidden}


def lora(layer: nnx.LoRA, widths: LayerWidths) -> dict[str, Any]:
    """Kernels [in, rank] and [rank, out]."""
    outputs = widths.shape("lora_b")[-1]
    return {"in_features": widths.shape("lora_a")[-2], "out_features": outputs}


def nothing(layer: Any, widths: LayerWidths) -> dict[str, Any]:
    """No attribute of this layer is a width."""
    return {}


ROWS: dict[type, Row] = {
    nnx.Linear: linear,
    nnx.LinearGeneral: linear_general,
    nnx.Einsum: einsum,
    nnx.Conv: conv,
    nnx.ConvTranspose: conv_transpose,
    nnx.Embed: embed,
    nnx.BatchNorm: norm,
    nnx.LayerNorm: norm,
    nnx.RMSNorm: norm,
    nnx.InstanceNorm: norm,
    nnx.GroupNorm: group_norm,
    nnx.MultiHeadAttention: attention,
    nnx.LSTMCell: lstm,
    nnx.OptimizedLSTMCell: recurrent,
    nnx.GRUCell: recurrent,
    nnx.SimpleCell: recurrent,
    nnx.RNN: nothing,
    nnx.Bidirectional: nothing,
    nnx.LoRA: lora,
    nnx.LoRALinear: linear,
    nnx.Dropout: nothing,
    nnx.PReLU: nothing,
    **{vars(nnx)[name]: nothing for name in ("RoPE",) if name in vars(nnx)},  # Flax 0.12.12
    nnx.Sequential: nothing,
    nnx.List: nothing,
    nnx.Dict: nothing,
    nnx.SpectralNorm: nothing,
    nnx.WeightNorm: nothing,
}


class NNXSeed:
    """An NNX model that is to be rebuilt.

    Attributes:
        fn: it as a function; see `regularizers.nnx_function`.
        variables: its variables by collection.
        layers: its modules by path, each with the attributes that no row decides.
    """

    def __init__(self, model: nnx.Module) -> None:
        """Splits the model; it is not changed."""
        self.fn, self.variables = nnx_function(model)
        self._graphdef, *states = nnx.split(model, nnx.RngState, ...)
        self._streams, self._state = states
        self.layers: Layers = {
            "/".join(map(str, path)): (type(module), _open_attributes(module))
            for path, module in nnx.iter_modules(model)
        }

    def rebuild(self, architecture: Architecture, changes: Changes) -> nnx.Module:
        """The model at the widths of an architecture, with some attributes changed."""
        small = architecture.take(self.variables)
        leaves = leaves_at(small, collections_of(self._state)[1])
        state = jax.tree.unflatten(jax.tree.structure(self._state), leaves)
        model = nnx.merge(self._graphdef, self._streams, state, copy=True)
        widths = by_layer(architecture)
        for path, module in nnx.iter_modules(model):
            layer = "/".join(map(str, path))
            found = attributes_now(ROWS, module, widths.get(layer))
            for name, value in {**found, **changes.get(layer, {})}.items():
                setattr(module, name, value)
        return model

    def function(self, model: nnx.Module) -> Callable[..., Any]:
        """A rebuilt model as a function of its variables."""
        return nnx_function(model)[0]


def _open_attributes(module: nnx.Module) -> dict[str, Any]:
    """What a module of the user's holds; the attributes of Flax's own layers are in the table."""
    return {} if type(module) in ROWS else dict(vars(module))
