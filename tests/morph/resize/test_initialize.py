"""Fresh variables at new widths are drawn as the model's own initializers would."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import morph
import regularizers as reg
from morph.errors import ArchitectureError
from morph.resize.initialize import infer_laws

INIT = nn.initializers
SEED = (12, 20)


class Net(nn.Module):
    """One layer per initializer in use, all on one pair of widths."""

    widths: tuple[int, int]

    @nn.compact
    def __call__(self, x):
        a, b = self.widths
        x = nn.Conv(a, (3, 3), kernel_init=INIT.he_normal())(x)
        x = nn.BatchNorm(use_running_average=True)(nn.relu(x))
        x = nn.Conv(b, (3, 3), kernel_init=INIT.variance_scaling(2.0, "fan_out", "normal"))(x)
        x = nn.relu(x).mean((1, 2))
        x = nn.relu(nn.Dense(b, kernel_init=INIT.xavier_uniform(), bias_init=INIT.ones)(x))
        x = nn.relu(nn.Dense(a, kernel_init=INIT.normal(0.02))(x))
        return nn.Dense(4)(x)


@pytest.fixture(scope="module")
def wide():
    x = jnp.ones((1, 5, 5, 3))
    net = morph.linen_network(Net(SEED), train_kwarg=None)
    graph = reg.trace_channels(net.predict, jax.eval_shape(net.init, jax.random.key(0), x), x)
    seed = morph.Architecture.of_seed(graph)
    widths = {name: 3 * width for name, width in seed.widths.items()}
    parents = {name: (*range(w // 3), *[-1] * (2 * w // 3)) for name, w in widths.items()}
    return net, seed.with_parents(parents), x


def test_standard_deviations_are_flax_own_within_5_percent(wide):
    net, architecture, x = wide
    keys = [jax.random.key(i, impl="rbg") for i in range(3)]
    draw = jax.jit(lambda key: morph.init(net.init, architecture, key, x))
    draw_own = jax.jit(lambda key: Net((36, 60)).init(key, x))
    drawn, own = [draw(key) for key in keys], [draw_own(key) for key in keys]
    for mine, flax in zip(
        jax.tree.leaves(jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)),
        jax.tree.leaves(jax.tree.map(lambda *leaves: jnp.stack(leaves), *own)),
        strict=True,
    ):
        assert mine.shape == flax.shape
        np.testing.assert_allclose(mine.mean(), flax.mean(), atol=0.1 * float(flax.std()) + 1e-6)
        if mine.ndim > 2:  # a kernel
            assert float(mine.std() / flax.std()) == pytest.approx(1.0, abs=0.05)
        else:
            np.testing.assert_array_equal(mine, flax)


def test_laws_are_recognised(wide):
    net, architecture, x = wide
    laws = infer_laws(net.init, architecture, (x,))
    assert laws["params/Conv_0/kernel"] == "fan_in"
    assert laws["params/Conv_1/kernel"] == "fan_out"
    assert laws["params/Dense_1/kernel"] == "fixed"
    assert laws["params/Dense_0/bias"] == "fixed"
    assert laws["params/Dense_2/kernel"] == "fan_in"


def test_nnx_constructors_are_resized_too():
    class Small(nnx.Module):
        def __init__(self, rngs):
            self.a = nnx.Linear(30, 14, rngs=rngs)
            self.b = nnx.Linear(14, 5, rngs=rngs)

        def __call__(self, x):
            return self.b(nnx.relu(self.a(x)))

    net, x = morph.nnx_network(Small), jnp.ones((1, 30))
    graph = reg.trace_channels(net.predict, jax.jit(net.init)(jax.random.key(0), x), x)
    wide = morph.Architecture.of_seed(graph).with_parents({"a": (*range(14), *[-1] * 86)})
    fresh = morph.init(net.init, wide, jax.random.key(1, impl="rbg"), x)
    assert fresh["params"]["b"]["kernel"].shape == (100, 5)
    assert float(fresh["params"]["a"]["kernel"].std()) == pytest.approx(30**-0.5, rel=0.05)
    assert float(fresh["params"]["b"]["kernel"].std()) == pytest.approx(0.1, rel=0.1)


def test_an_architecture_of_another_seed_is_refused(wide):
    _, architecture, x = wide
    other = morph.linen_network(Net((12, 21)), train_kwarg=None)
    with pytest.raises(ArchitectureError, match=r"gives .* the shape .*another seed"):
        morph.init(other.init, architecture, jax.random.key(0), x)
    renamed = morph.linen_network(nn.Dense(4), train_kwarg=None)
    with pytest.raises(ArchitectureError, match="gives no variable"):
        morph.init(renamed.init, architecture, jax.random.key(0), jnp.ones((1, 3)))
