"""Code that cannot run at other widths is an error that names the line."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from native_models import TOKENS, shrink

import morph
import regularizers as reg
from morph.errors import NativeError


class Fixed(nnx.Module):
    """Reshapes by a number in its code."""

    def __init__(self, rngs):
        self.dense, self.head = nnx.Linear(7, 12, rngs=rngs), nnx.Linear(12, 3, rngs=rngs)

    def __call__(self, x):
        y = self.dense(x).reshape(*x.shape[:-1], 4, 3)
        return self.head(nnx.relu(y.swapaxes(-1, -2)).reshape(*x.shape[:-1], 12))


class Silent(Fixed):
    """Reshapes by a number in its code that still divides the new width."""

    def __call__(self, x):
        y = self.dense(x).reshape(*x.shape[:-1], 2, -1)
        y = nnx.softmax(y, -1)
        return self.head(y.reshape(*x.shape[:-1], -1))


def test_code_that_fixes_a_width_is_an_error_that_names_the_line():
    model = Fixed(nnx.Rngs(0))
    arch = shrink(*reg.nnx_function(model), TOKENS)
    with pytest.raises(NativeError, match=r"Fixed .*reshape.*test_verify\.py:\d+ \(__call__\)"):
        morph.native(model, arch, TOKENS)
    with pytest.raises(NativeError, match=r"morph\.compact\(fn, architecture\) runs any model"):
        morph.native(model, arch, TOKENS)


def test_code_that_computes_something_else_is_an_error():
    model = Silent(nnx.Rngs(0))
    fn, variables = reg.nnx_function(model)
    graph = reg.trace_channels(fn, variables, TOKENS)
    heads = next(name for name, width in graph.widths.items() if width == 2)
    arch = morph.shrink(graph, {heads: np.array([True, False])}, inexact=True)
    with pytest.raises(
        NativeError, match=r"should have shape \[2, 5, 1, 6\], found \[2, 5, 2, 3\]"
    ):
        morph.native(model, arch, TOKENS)


class LinenFixed(nn.Module):
    """Splits at a number in its code, in a layer of a name."""

    @nn.compact
    def __call__(self, x):
        return LinenSplit(name="split")(x)


class LinenSplit(nn.Module):
    """Splits at a number in its code."""

    @nn.compact
    def __call__(self, x):
        one, two = jnp.split(nn.Dense(11)(x), [5], -1)
        return nn.Dense(3)(nn.relu(one)) + nn.Dense(3)(nn.relu(two))


def test_linen_code_that_fixes_a_width_is_an_error_that_names_the_layer():
    model = LinenFixed()
    variables = jax.jit(model.init)(jax.random.key(0), TOKENS)
    arch = shrink(model.apply, variables, TOKENS)
    with pytest.raises(NativeError, match=r"LinenFixed cannot.*split.*test_verify\.py:\d+"):
        morph.native(model, arch, TOKENS)


def test_linen_parameter_of_a_fixed_shape_is_an_error():
    class Shifted(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(9)(x)
            return nn.Dense(3)(x + self.param("shift", nn.initializers.normal(), (1, 1, 9)))

    model = Shifted()
    arch = shrink(model.apply, jax.jit(model.init)(jax.random.key(0), TOKENS), TOKENS)
    with pytest.raises(NativeError, match=r"shift.*\(1, 1, 6\)"):
        morph.native(model, arch, TOKENS)
