"""Annotations of arrays are checked while tests run: see tests/corpus/annotations.py."""

import jax.numpy as jnp
import jaxtyping
import pytest

from morph.training.losses import cross_entropy


def test_a_wrongly_shaped_argument_is_refused():
    assert cross_entropy(jnp.zeros((3, 2)), jnp.zeros(3, int)).shape == ()
    with pytest.raises(jaxtyping.TypeCheckError, match="typechecking parameter 'y'"):
        cross_entropy(jnp.zeros((3, 2)), jnp.zeros(1, int))
