"""Trained ternary quantization: three values, the paper's gradients, training through them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import morph
import regularizers as reg
from experiments.networks.mlp import MLP
from morph.compress.ternary import Ternary, ternarized
from morph.compress.training import accuracy_of, train
from morph.kernels.compressed import Shared, unpacked
from morph.network import linen_network
from morph.training.data import Batch


class Net(nn.Module):
    """A convolution, a depthwise one, and two dense layers."""

    @nn.compact
    def __call__(self, x):
        """Logits."""
        x = nn.relu(nn.Conv(6, (3, 3), name="stem")(x))
        x = nn.relu(nn.Conv(6, (3, 3), feature_group_count=6, name="depthwise")(x))
        x = nn.relu(nn.Dense(5, name="hidden")(x.reshape(x.shape[0], -1)))
        return nn.Dense(3, name="logits")(x)


@pytest.fixture(scope="module")
def case():
    x = jax.random.normal(jax.random.key(1), (2, 4, 4, 2))
    variables = Net().init(jax.random.key(0), x)
    return Net().apply, variables, x, reg.trace_channels(Net().apply, variables, x)


def test_values_and_gradients_are_the_papers():
    w = jnp.asarray([[1.0, 0.2, 0.1], [-0.05, -0.3, 0.09]])
    value = Ternary(latent=w, positive=jnp.asarray(0.7), negative=jnp.asarray(0.4), threshold=0.1)
    members = np.asarray([[1, 1, 0], [0, 2, 0]])  # .1 itself is within the threshold
    np.testing.assert_array_equal(value.codes, members)
    dense = np.asarray([0.0, 0.7, -0.4], np.float32)[members]
    np.testing.assert_array_equal(value.dense(), dense)
    g = jnp.asarray([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
    slope = jax.grad(lambda value: jnp.sum(g * value.dense()))(value)
    assert slope.positive == 1 + 2
    assert slope.negative == -16  # the kernel holds -Wn
    np.testing.assert_allclose(slope.latent, g * np.asarray([1.0, 0.7, 0.4])[members], rtol=1e-6)


def test_it_starts_as_the_closest_three_values(rng):
    kernel = jnp.asarray(rng.normal(size=(7, 5)), jnp.float32)
    value = Ternary.of(kernel, 0.3)
    bound = 0.3 * np.abs(kernel).max()
    assert value.positive == pytest.approx(float(kernel[kernel > bound].mean()), rel=1e-5)
    assert value.negative == pytest.approx(-float(kernel[kernel < -bound].mean()), rel=1e-5)
    frozen = value.frozen()
    assert isinstance(frozen, Shared)
    assert frozen.codes.dtype == jnp.uint8
    np.testing.assert_array_equal(frozen.dense(), value.dense())
    assert set(np.unique(frozen.codes)) == {0, 1, 2}


@pytest.mark.parametrize(
    ("kernel", "scales", "dense"),
    [
        ([0.0, 0.0], (1, 1), [0, 0]),
        ([0.5, 0.5], (0.5, 0.5), [0.5, 0.5]),
        ([-2.0, 0.0], (2, 2), [-2, 0]),
    ],
)
def test_zeros_and_constants_stay_what_they_are(kernel, scales, dense):
    value = Ternary.of(jnp.asarray(kernel))
    assert (value.positive, value.negative) == scales
    np.testing.assert_array_equal(value.dense(), dense)
    slope = jax.grad(lambda value: jnp.sum(value.dense()))(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (("first", "last"), {"depthwise", "hidden"}),
        ((), {"stem", "depthwise", "hidden", "logits"}),
        ("first", {"depthwise", "hidden", "logits"}),
        (("last", "depth*"), {"stem", "hidden"}),
    ],
)
def test_layers_are_kept_as_asked(keep, expected, case):
    apply, variables, x, graph = case
    values = ternarized(graph, variables, keep=keep)
    found = {
        name for name, layer in values["params"].items() if isinstance(layer["kernel"], Ternary)
    }
    assert found == expected
    np.testing.assert_array_equal(
        jax.jit(morph.tensorized(apply))(values, x), jax.jit(apply)(unpacked(values), x)
    )


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"kernels": "hiden"}, "kernels='hiden' matches no layer.*did you mean 'hidden'"),
        ({"keep": ("frist",)}, "keep='frist' matches no layer"),
        ({"keep": "*"}, r"no kernel would be ternary: keep='\*' names all"),
        ({"threshold": 1.0}, "at least 0 and below 1, found 1.0"),
        ({"threshold": -0.1}, "at least 0 and below 1, found -0.1"),
    ],
)
def test_bad_requests(how, message, case):
    _, variables, _, graph = case
    with pytest.raises(ValueError, match=message):
        ternarized(graph, variables, **how)


def test_kernels_that_are_not_finite_are_refused(case):
    _, variables, _, graph = case
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, variables)
    with pytest.raises(ValueError, match="params/depthwise/kernel holds values that are NaN"):
        ternarized(graph, broken)


def test_training_learns_scales_and_assignments():
    generator = np.random.default_rng(0)
    y = generator.integers(4, size=256)
    x = generator.normal(size=(4, 3, 3, 1))[y] + 0.3 * generator.normal(size=(256, 3, 3, 1))
    data = Batch(x.astype(np.float32), y.astype(np.int32))
    network = linen_network(MLP(num_classes=4, widths=(11, 7)))
    start = network.init(jax.random.key(0), data.x[:1])
    graph = reg.trace_channels(network.predict, start, data.x[:1])
    values = ternarized(graph, start, keep=())  # from scratch, all layers
    after, _ = train(network, values, data, optax.adam(1e-2), steps=100, batch_size=64)
    assert accuracy_of(network, after, data) > 0.95 > accuracy_of(network, values, data) + 0.2
    for name, layer in after["params"].items():
        before, now = values["params"][name]["kernel"], layer["kernel"]
        assert now.positive != before.positive
        assert now.negative != before.negative
        assert (now.codes != before.codes).any()
    frozen = jax.tree.map(
        lambda leaf: leaf.frozen() if isinstance(leaf, Ternary) else leaf,
        after,
        is_leaf=lambda leaf: isinstance(leaf, Ternary),
    )
    assert accuracy_of(network, frozen, data) == accuracy_of(network, after, data)
