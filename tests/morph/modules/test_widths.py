"""Numbers that mix widths, or have more than one reading."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from native_models import TOKENS, Heads, shrink

import morph
import regularizers as reg
from morph.errors import NativeError


class Scaled(Heads):
    """Divides by a root of a quotient of two attributes, only one of which is used in shapes."""

    def __call__(self, x):
        return super().__call__(x / np.sqrt(self.unused // self.num_heads))


def test_numbers_that_mix_old_and_new_widths_are_an_error():
    model = Scaled(12, 3, nnx.Rngs(0))
    x = jnp.ones((2, 5, 12))
    arch = shrink(*reg.nnx_function(model), x)
    with pytest.raises(NativeError, match=r"depend on Scaled\.unused, which may be any of"):
        morph.native(model, arch, x)


class Square(nnx.Module):
    """Two attributes of which the call shows only the product."""

    def __init__(self, rngs):
        self.one, self.two = nnx.Linear(7, 4, rngs=rngs), nnx.Linear(7, 4, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)
        self.rows = self.columns = 4

    def __call__(self, x):
        y = nnx.relu(self.one(x)) + nnx.relu(self.two(x)).sum(-1, keepdims=True)
        return self.head(jnp.broadcast_to(y, (*x.shape[:-1], self.rows * self.columns // 4)))


def test_more_than_one_choice_is_an_error():
    model = Square(nnx.Rngs(0))
    arch = shrink(*reg.nnx_function(model), TOKENS)
    with pytest.raises(NativeError, match=r"more than one choice fits for Square\.rows"):
        morph.native(model, arch, TOKENS)
