"""The GPT reads no token that comes later, whatever its linear layers are."""

import jax
import numpy as np
import pytest

from experiments.networks.gpt import GPT, dense
from morph.tensorize.flax.linen_layers import TTDense


def mpo(features, name):
    return TTDense(features, rank=2, name=name)


@pytest.mark.parametrize("linear", [dense, mpo])
def test_logits_depend_on_earlier_tokens_only(linear):
    model = GPT(11, width=6, blocks=1, heads=2, context=7, linear=linear)
    ids = np.array([[3, 1, 4, 1, 5, 9, 2], [3, 1, 4, 1, 0, 9, 2]])
    shapes = jax.eval_shape(model.init, jax.random.key(0), ids)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.normal(0.0, 0.6, leaf.shape).astype("f"), shapes)
    one, other = jax.jit(model.apply)(variables, ids)
    assert one.shape == (7, 11)
    np.testing.assert_allclose(one[:4], other[:4], atol=1e-5)
    assert (np.abs(one[4:] - other[4:]).max(-1) > 1e-4).all()
