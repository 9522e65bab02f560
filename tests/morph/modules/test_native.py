import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from native_models import IDS, IMAGE, Convolutions, LinenTied, ViT, shrink

import morph
import regularizers as reg
from morph.errors import NativeError
from morph.modules.linen_layers import ROWS as LINEN_ROWS
from morph.modules.nnx_layers import ROWS as NNX_ROWS


def test_nnx_without_inputs():
    model = Convolutions(nnx.Rngs(0))
    fn, variables = reg.nnx_function(model)
    arch = shrink(fn, variables, IMAGE)
    small, checked = morph.native(model, arch), morph.native(model, arch, IMAGE)
    assert nnx.graphdef(small) == nnx.graphdef(checked)
    vit = ViT(nnx.Rngs(0))
    with pytest.raises(NativeError, match=r"only a call can tell: pass example inputs"):
        morph.native(vit, shrink(*reg.nnx_function(vit), IMAGE))


def test_nnx_in_training_goes_on():
    model = Convolutions(nnx.Rngs(params=0, dropout=1))
    arch = shrink(*reg.nnx_function(model), IMAGE)
    small = morph.native(model, arch, IMAGE)

    @nnx.jit
    def loss_and_gradient(model):
        return nnx.value_and_grad(lambda m: jnp.sum(m(IMAGE) ** 2))(model)

    value, gradient = loss_and_gradient(small)
    assert np.isfinite(value)
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, nnx.state(small, nnx.Param))


def test_linen_needs_inputs():
    model = LinenTied()
    arch = shrink(model.apply, jax.jit(model.init)(jax.random.key(0), IDS), IDS)
    with pytest.raises(NativeError, match="pass example inputs"):
        morph.native(model, arch)


def test_other_things_are_no_models():
    arch = shrink(LinenTied().apply, jax.jit(LinenTied().init)(jax.random.key(0), IDS), IDS)
    with pytest.raises(TypeError, match=r"nnx\.Module or a flax\.linen\.Module"):
        morph.native(lambda x: x, arch, IDS)


def test_every_layer_of_flax_that_has_variables_has_a_row():
    def layers(package, base):
        kinds = {value for value in vars(package).values() if isinstance(value, type)}
        return {k for k in kinds if issubclass(k, base) and k is not package.RNNCellBase}

    nnx_layers = {k for k in layers(nnx, nnx.Module) if k.__module__.startswith("flax.nnx.nn.")}
    assert len(nnx_layers) > 20
    assert nnx_layers <= NNX_ROWS.keys()
    # The operations in eight bits have ranges of whole arrays, and no widths.
    linen_layers = {k for k in layers(nn, nn.Module) if "fp8" not in k.__module__} - {nn.Module}
    assert len(linen_layers) > 20
    assert {k for k in linen_layers if not LINEN_ROWS.keys() & set(k.__mro__)} == set()
