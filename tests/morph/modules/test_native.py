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


class Patches(nn.Module):
    """Two numbers of four, a window and the heads, of which one follows a width."""

    patch: int = 4
    heads: int = 4

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(16, (self.patch,) * 2, strides=self.patch, padding="VALID")(x)
        x = nn.LayerNorm()(x.reshape(len(x), -1, x.shape[-1]))
        x = x + nn.MultiHeadDotProductAttention(num_heads=self.heads)(x, x)
        return nn.Dense(2)(x.mean(1))


@pytest.fixture(scope="module")
def patches():
    model, x = Patches(), jax.random.normal(jax.random.key(1), (1, 12, 12, 3))
    variables = model.init(jax.random.key(0), x)
    graph = reg.trace_channels(model.apply, variables, x)
    alive = {name: np.arange(width) < width // 2 for name, width in graph.widths.items()}
    return model, graph.mask(variables, alive), x, morph.shrink(graph, alive, inexact=True)


def test_a_number_that_only_equals_a_width_is_no_obstacle(patches):
    model, variables, x, arch = patches
    small = morph.native(model, arch, x, rescale_means=True)
    assert (small.patch, arch.shape("params/Conv_0/kernel")) == (4, (4, 4, 3, 8))
    assert small.apply(arch.take(variables), x).shape == (1, 2)


def test_numbers_of_widths_are_told_with_the_switch(patches):
    model, _, x, arch = patches
    said = r"LayerNorm_0 16 -> 8.*compact\(fn, architecture, rescale_means=True\).*Attention_0"
    with pytest.warns(morph.NativeNumbersWarning, match=said):
        morph.native(model, arch, x)


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(nn.LayerNorm()(nn.Dense(9)(x)))


def test_the_switch_makes_compact_agree_with_the_native_model():
    model, x = Normed(), jax.random.normal(jax.random.key(1), (3, 5))
    variables = model.init(jax.random.key(0), x)
    graph = reg.trace_channels(model.apply, variables, x)
    arch = morph.shrink(graph, {"Dense_1": np.arange(9) % 3 != 0})
    with pytest.warns(morph.NativeNumbersWarning, match=r"LayerNorm_0 9 -> 6"):
        small = morph.native(model, arch, x)
    taken = arch.take(variables)
    ours = small.apply(taken, x)
    agreed = morph.compact(model.apply, arch, rescale_means=True)(taken, x)
    np.testing.assert_allclose(ours, agreed, rtol=1e-5)
    assert not np.allclose(ours, morph.compact(model.apply, arch)(taken, x), rtol=1e-2)
