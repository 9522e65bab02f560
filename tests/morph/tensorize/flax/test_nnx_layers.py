"""Layers of NNX; what they compute is compared in `test_linen_layers.py`, side by side."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from morph.kernels.factorized import Factorized
from morph.tensorize.flax import nnx_layers

MAKERS = {
    "SVDDense": lambda rngs: nnx_layers.SVDDense(6, 8, rank=2, rngs=rngs),
    "TTDense": lambda rngs: nnx_layers.TTDense(6, 8, rank=2, cores=2, rngs=rngs),
    "TuckerConv": lambda rngs: nnx_layers.TuckerConv(6, 8, (3, 2), rank=2, rngs=rngs),
    "CPConv": lambda rngs: nnx_layers.CPConv(6, 8, (3, 2), rank=2, rngs=rngs),
}


@pytest.mark.parametrize("name", MAKERS)
def test_the_kernel_is_one_parameter_made_of_cores(name):
    """Under Flax's own names, and as long as Flax's own."""
    state = nnx.state(nnx.eval_shape(lambda: MAKERS[name](nnx.Rngs(0))), nnx.Param)
    kernel = state["kernel"].get_value()
    assert isinstance(kernel, Factorized)
    assert kernel.shape == ((6, 8) if name.endswith("Dense") else (3, 2, 6, 8))
    assert state["bias"].get_value().shape == (8,)


def test_parameters_and_results_have_the_types_that_were_asked_for():
    def made():
        options = {"dtype": jnp.bfloat16, "param_dtype": jnp.float16, "use_bias": False}
        layer = nnx_layers.TTDense(6, 8, rank=2, cores=2, rngs=nnx.Rngs(0), **options)
        return layer(jnp.ones((3, 6))), nnx.state(layer, nnx.Param)

    out, state = nnx.eval_shape(made)
    assert (out.shape, out.dtype) == ((3, 8), jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype(jnp.float16)}


def test_options_that_have_no_meaning():
    with pytest.raises(TypeError, match="feature_group_count is not an option of this layer"):
        nnx_layers.TuckerConv(8, 8, (3, 3), rank=2, feature_group_count=2, rngs=nnx.Rngs(0))
