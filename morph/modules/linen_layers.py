"""Linen: a module of the same class whose layers get their widths when they are called.

Linen modules make their layers in code, so nobody can change these beforehand. But every call of
every layer passes through `nn.intercept_methods`, and there a bound layer, which belongs to this
one call, gets its attributes before its own code reads them.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
from flax.linen.recurrent import DenseParams

from morph.architecture.architecture import Architecture
from morph.modules.widths import Changes, Layers, LayerWidths, Row, attributes_now, by_layer
from regularizers.channels.calls import bind_call
from regularizers.primitives import jaxprs


def dense(layer: nn.Dense | DenseParams | nn.DenseGeneral, widths: LayerWidths) -> dict[str, Any]:
    """Kernel [in, out]."""
    return {"features": widths.shape("kernel")[-1]}


def dense_general(layer: nn.DenseGeneral, widths: LayerWidths) -> dict[str, Any]:
    """Kernel [*batch, *in, *out]."""
    if isinstance(layer.features, int):
        return dense(layer, widths)
    return {"features": widths.shape("kernel")[-len(layer.features) :]}


def einsum(layer: nn.Einsum, widths: LayerWidths) -> dict[str, Any]:
    """Kernel as it is."""
    return {"shape": widths.shape("kernel")[-len(layer.shape) :]}


def conv(layer: nn.Conv, widths: LayerWidths) -> dict[str, Any]:
    """Kernel [*window, in / groups, out]."""
    groups = widths.outer(layer.feature_group_count, "kernel")
    return {"features": widths.shape("kernel")[-1], "feature_group_count": groups}


def conv_transpose(layer: nn.ConvTranspose, widths: LayerWidths) -> dict[str, Any]:
    """Kernel [*window, in, out]; [*window, out, in] if it is a convolution's, transposed."""
    return {"features": widths.shape("kernel")[-2 if layer.transpose_kernel else -1]}


def embed(layer: nn.Embed, widths: LayerWidths) -> dict[str, Any]:
    """Table [embeddings, features]."""
    count, features = widths.shape("embedding")[-2:]
    return {"num_embeddings": count, "features": features}


def group_norm(layer: nn.GroupNorm, widths: LayerWidths) -> dict[str, Any]:
    """One number per feature, in `num_groups` stretches of `group_size`, one of which is given."""
    if layer.num_groups is not None:
        return {"num_groups": widths.outer(layer.num_groups, "scale", "bias")}
    assert layer.group_size is not None, "Flax takes one of the two"
    count = widths.seed_shape("scale", "bias")[-1] // layer.group_size
    features = widths.shape("scale", "bias")[-1]
    return {"group_size": features // widths.outer(count, "scale", "bias")}


def attention(layer: nn.MultiHeadDotProductAttention, widths: LayerWidths) -> dict[str, Any]:
    """Query, key and value kernels [in, heads, width of a head], out kernel [heads, width, out]."""
    heads, width = widths.shape("query/kernel")[-2:]
    outputs = widths.shape("out/kernel")[-1]
    return {"num_heads": heads, "qkv_features": heads * width, "out_features": outputs}


def recurrent(layer: Any, widths: LayerWidths) -> dict[str, Any]:
    """One kernel [hidden, hidden] per gate."""
    return {"features": widths.shape("hi/kernel", "hn/kernel", "h/kernel")[-1]}


def conv_lstm(layer: nn.ConvLSTMCell, widths: LayerWidths) -> dict[str, Any]:
    """One kernel [*window, hidden, gates x hidden]."""
    return {"features": widths.shape("hh/kernel")[-2]}


def nothing(layer: Any, widths: LayerWidths) -> dict[str, Any]:
    """No attribute of this layer is a width."""
    return {}


ROWS: dict[type, Row] = {
    nn.Dense: dense,
    DenseParams: dense,
    nn.DenseGeneral: dense_general,
    nn.Einsum: einsum,
    nn.Conv: conv,
    nn.ConvLocal: conv,
    nn.ConvTranspose: conv_transpose,
    nn.Embed: embed,
    nn.BatchNorm: nothing,
    nn.LayerNorm: nothing,
    nn.RMSNorm: nothing,
    nn.InstanceNorm: nothing,
    nn.GroupNorm: group_norm,
    nn.WeightNorm: nothing,
    nn.SpectralNorm: nothing,
    nn.MultiHeadDotProductAttention: attention,
    nn.LSTMCell: recurrent,
    nn.OptimizedLSTMCell: recurrent,
    nn.GRUCell: recurrent,
    nn.MGUCell: recurrent,
    nn.SimpleCell: recurrent,
    nn.ConvLSTMCell: conv_lstm,
    nn.RNN: nothing,
    nn.Bidirectional: nothing,
    nn.Dropout: nothing,
    nn.PReLU: nothing,
    nn.Sequential: nothing,
}


class LinenSeed:
    """A Linen module that is to be rebuilt.

    Attributes:
        fn: its `apply`.
        variables: its variables, abstract.
        layers: the modules that the call uses, by path, each with the attributes that no row
            decides.
    """

    def __init__(
        self,
        module: nn.Module,
        architecture: Architecture,
        inputs: Sequence[Any],
        static: Mapping[str, Any],
    ) -> None:
        """Traces a call to meet the layers; the module is not changed."""
        self.fn, self._module = module.apply, module
        self.variables = _nested(
            {
                path: jax.ShapeDtypeStruct(variable.shape, variable.dtype)
                for path, variable in architecture.variables.items()
            }
        )
        self._met: dict[str, list[nn.Module]] = {}

        def meet(method: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            self._met.setdefault("/".join(context.module.path), []).append(context.module)
            return method(*args, **kwargs)

        call = bind_call(self.fn, self.variables, inputs, static)
        with nn.intercept_methods(meet):
            jaxprs.trace(call.flat, *call.structs)
        self.layers: Layers = {
            path: (type(modules[0]), _open_attributes(modules[0]))
            for path, modules in self._met.items()
        }

    def rebuild(self, architecture: Architecture, changes: Changes) -> nn.Module:
        """The module at the widths of an architecture, with some attributes changed."""
        widths = by_layer(architecture)
        found: dict[tuple[str, str], Mapping[str, Any]] = {}
        for path, modules in self._met.items():
            for module in modules:
                own = attributes_now(ROWS, module, widths.get(path))
                found[path, type(module).__name__] = {**own, **changes.get(path, {})}
        kind = _native_class(type(self._module), found)
        fields = [f.name for f in dataclasses.fields(self._module) if f.init]
        given = {name: getattr(self._module, name) for name in fields if name != "parent"}
        return kind(**{**given, **found[_root(self._module)]})

    def function(self, module: nn.Module) -> Callable[..., Any]:
        """A rebuilt module as a function of its variables."""
        return module.apply


def _root(module: nn.Module) -> tuple[str, str]:
    return "", type(module).__name__


def _native_class(
    kind: type[nn.Module], attributes: Mapping[tuple[str, str], Mapping[str, Any]]
) -> type[nn.Module]:
    """A subclass of `kind` whose methods give their layers these attributes, by path and class."""

    def resized(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method, updated=())  # Flax keeps marks of its own in the dictionary
        def run(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if self.scope is None:
                return method(self, *args, **kwargs)
            above = len(self.path)

            def give(inner: Any, args: Any, kwargs: Any, context: Any) -> Any:
                module = context.module
                parts = [getattr(module, f.name) for f in dataclasses.fields(module)[:-2]]
                for layer in (module, *parts):
                    if isinstance(layer, nn.Module) and layer.scope is not None:
                        key = "/".join(layer.path[above:]), type(layer).__name__
                        for attribute, value in attributes.get(key, {}).items():
                            object.__setattr__(layer, attribute, value)
                return inner(*args, **kwargs)

            with nn.intercept_methods(give):
                return method(self, *args, **kwargs)

        return run

    methods = {
        name: resized(name, getattr(kind, name))
        for base in kind.__mro__[: kind.__mro__.index(nn.Module)]
        for name, method in vars(base).items()
        if inspect.isfunction(method) and (name == "__call__" or not name.startswith("_"))
    }
    marks = {"__doc__": kind.__doc__, "__module__": kind.__module__}
    return type(kind.__name__, (kind,), {**marks, "__qualname__": kind.__qualname__, **methods})


def _open_attributes(module: nn.Module) -> dict[str, Any]:
    """The fields of a module of the user's; those of Flax's own layers are in the table."""
    if type(module) in ROWS:
        return {}
    names = (f.name for f in dataclasses.fields(module) if f.init)
    return {n: getattr(module, n) for n in names if n not in ("parent", "name")}


def _nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *above, last = path.split("/")
        node = tree
        for key in above:
            node = node.setdefault(key, {})
        node[last] = leaf
    return tree
