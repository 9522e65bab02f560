"""Programs of layers: what a calibration times is made of these. All arrays are arguments."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

Variables: TypeAlias = dict[str, dict[str, Any]]
Layer: TypeAlias = Callable[["Scope", jax.Array], jax.Array]


@dataclass(frozen=True, kw_only=True)
class Program:
    """One function to time.

    Attributes:
        name: unique, says family and shape.
        layers: run one after the other.
        shape: of the input, with the batch first.
    """

    name: str
    layers: tuple[Layer, ...]
    shape: tuple[int, ...]

    def __call__(self, variables: Variables, x: jax.Array) -> jax.Array:
        """Runs the layers."""
        return _run(self.layers, Scope(variables=variables, shapes={}), x)

    def abstract(self) -> tuple[Variables, jax.ShapeDtypeStruct]:
        """The shapes of the variables and of the input."""
        x = jax.ShapeDtypeStruct(self.shape, jnp.float32)
        scope = Scope(variables=None, shapes={})
        jax.eval_shape(partial(_run, self.layers, scope), x)
        return scope.shapes, x

    def arrays(self) -> tuple[Variables, jax.Array]:
        """Numbers for them, on the default device; values near one, whatever the depth."""
        variables, _ = self.abstract()
        draw = np.random.default_rng(0)

        def number(struct: jax.ShapeDtypeStruct) -> jax.Array:
            values = draw.standard_normal(struct.shape, np.float32)
            if len(struct.shape) == 1:  # scales and variances are positive
                return jax.device_put(1.0 + 0.1 * np.abs(values))
            return jax.device_put(values / np.sqrt(math.prod(struct.shape[:-1])))

        return jax.tree.map(number, variables), jax.device_put(
            draw.standard_normal(self.shape, np.float32)
        )


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Hands out variables by name; without variables, notes which shapes are asked for."""

    variables: Mapping[str, Mapping[str, Any]] | None
    shapes: Variables
    prefix: str = ""

    def __call__(self, name: str, *shape: int) -> jax.Array:
        """The variable `name` of this layer."""
        if self.variables is not None:
            return self.variables[self.prefix][name]
        self.shapes.setdefault(self.prefix, {})[name] = jax.ShapeDtypeStruct(shape, jnp.float32)
        return jnp.zeros(shape)

    def inner(self, name: str) -> Scope:
        """For a layer inside this one."""
        prefix = f"{self.prefix}.{name}" if self.prefix else name
        return Scope(variables=self.variables, shapes=self.shapes, prefix=prefix)


def _run(layers: tuple[Layer, ...], scope: Scope, x: jax.Array) -> jax.Array:
    for k, layer in enumerate(layers):
        x = layer(scope.inner(f"layer_{k}"), x)
    return x


def _along(vector: jax.Array, x: jax.Array) -> jax.Array:
    """A vector along the last axis of x."""
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)


def conv(features: int, side: int, stride: int = 1, groups: int = 1) -> Layer:
    """A convolution with SAME padding; `groups=0` stands for a depthwise one."""

    def run(scope: Scope, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        count = groups or channels
        kernel = scope("kernel", side, side, channels // count, features)
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=count,
        )

    return run


def transposed_conv(features: int, side: int) -> Layer:
    """A transposed convolution with stride 2."""

    def run(scope: Scope, x: jax.Array) -> jax.Array:
        kernel = scope("kernel", side, side, x.shape[-1], features)
        return jax.lax.conv_transpose(
            x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    return run


def batch_norm(scope: Scope, x: jax.Array) -> jax.Array:
    """With running statistics."""
    names = ("mean", "var", "scale", "bias")
    mean, var, scale, bias = (_along(scope(name, x.shape[-1]), x) for name in names)
    return (x - mean) * (jax.lax.rsqrt(var + 1e-5) * scale) + bias


def layer_norm(scope: Scope, x: jax.Array) -> jax.Array:
    """Over the last axis."""
    mean = x.mean(-1, keepdims=True)
    variance = jnp.maximum((x * x).mean(-1, keepdims=True) - mean * mean, 0.0)
    scale, bias = (_along(scope(name, x.shape[-1]), x) for name in ("scale", "bias"))
    return (x - mean) * (jax.lax.rsqrt(variance + 1e-6) * scale) + bias


def dense(features: int) -> Layer:
    """A matrix product and a bias."""

    def run(scope: Scope, x: jax.Array) -> jax.Array:
        y = x @ scope("kernel", x.shape[-1], features)
        return y + _along(scope("bias", features), y)

    return run


def plain(function: Callable[[jax.Array], jax.Array]) -> Layer:
    """A function without variables."""
    return lambda scope, x: function(x)


def residual(*layers: Layer) -> Layer:
    """What the layers make of x, added to x."""
    return lambda scope, x: x + _run(layers, scope, x)


def towers(*branches: tuple[Layer, ...]) -> Layer:
    """What every branch makes of x, concatenated on the channels."""

    def run(scope: Scope, x: jax.Array) -> jax.Array:
        return jnp.concatenate(
            [_run(branch, scope.inner(f"tower_{k}"), x) for k, branch in enumerate(branches)], -1
        )

    return run


def attention(heads: int) -> Layer:
    """Multi-head self-attention on [batch, tokens, channels]."""

    def run(scope: Scope, x: jax.Array) -> jax.Array:
        shape = *x.shape[:2], heads, x.shape[-1] // heads
        q, k, v = (
            dense(x.shape[-1])(scope.inner(name), x).reshape(shape)
            for name in ("query", "key", "value")
        )
        scores = jnp.einsum("bqhd,bkhd->bhqk", q / np.sqrt(shape[-1]), k)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v)
        return dense(x.shape[-1])(scope.inner("out"), mixed.reshape(x.shape))

    return run


def pool(kind: str, side: int, stride: int) -> Layer:
    """Max or average pooling with SAME padding."""
    window, strides = (1, side, side, 1), (1, stride, stride, 1)

    def run(scope: Scope, x: jax.Array) -> jax.Array:
        if kind == "max":
            return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, "SAME")
        total = jax.lax.reduce_window(x, 0.0, jax.lax.add, window, strides, "SAME")
        return total / side**2

    return run


relu, relu6, silu = plain(jax.nn.relu), plain(jax.nn.relu6), plain(jax.nn.silu)
gelu = plain(partial(jax.nn.gelu, approximate=False))
tanh, softmax = plain(jnp.tanh), plain(jax.nn.softmax)
mean = plain(lambda x: x.mean((1, 2)))
flatten = plain(lambda x: x.reshape(x.shape[0], -1))
