"""Scales and shifts behind a product go into it; nothing else does."""

from collections import Counter

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morph.export import onnx

reader = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 6, 5, 3)).astype(np.float32)


def numbers(*shape):
    return jnp.asarray(RNG.normal(size=shape).astype(np.float32))


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(7, (3, 3), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True)(x))
        x = nn.relu6(
            nn.BatchNorm(use_running_average=True)(nn.Conv(7, (3, 3), feature_group_count=7)(x))
        )
        x = nn.BatchNorm(use_running_average=True)(nn.Dense(5)(x.mean((1, 2))))
        return nn.relu(x)


def operations(path):
    return Counter(node.op_type for node in reader.load(path).graph.node)


def test_batch_norms_go_into_what_they_follow(tmp_path):
    variables = jax.tree.map(
        lambda x: numbers(*x.shape) ** 2 + 0.1, Net().init(jax.random.key(0), X)
    )
    onnx.to_onnx(Net().apply, variables, X, tmp_path / "a.onnx")
    found = operations(tmp_path / "a.onnx")
    assert (found["Conv"], found["Relu"], found["Clip"], found["MatMul"]) == (2, 3, 1, 1)
    assert found["Sub"] == found["Max"] == found["Min"] == 0
    assert (found["Mul"], found["Add"]) == (0, 1)  # the bias of the dense layer
    wanted = Net().apply(variables, X)
    np.testing.assert_allclose(onnx.load(tmp_path / "a.onnx")(X), wanted, rtol=1e-4, atol=1e-4)


KERNEL, WIDE, SCALE = numbers(3, 3, 3, 3), numbers(5, 3), numbers(1, 1, 1, 3)
STAYS = {
    "read twice": lambda y: y + jnp.tanh(y * SCALE),
    "of places": lambda y: y * WIDE[None, None],
    "of what is not known": lambda y: y * y,
    "below": lambda y: 2.0 / y,
}


@pytest.mark.promotes
@pytest.mark.parametrize("name", STAYS)
def test_what_is_something_else_stays(tmp_path, name):
    def fn(kernel, x):
        y = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return STAYS[name](y)

    onnx.to_onnx(fn, KERNEL, X, tmp_path / "a.onnx")
    found = operations(tmp_path / "a.onnx")
    assert found["Mul"] + found["Div"] == 1
    np.testing.assert_allclose(
        onnx.load(tmp_path / "a.onnx")(X), fn(KERNEL, X), rtol=1e-3, atol=1e-3
    )


def test_a_kernel_of_two_products_is_kept_for_the_other(tmp_path):
    kernel = numbers(3, 4)

    def fn(kernel, x):
        return (x @ kernel) * 2.0 + (jnp.sin(x) @ kernel) * 3.0 - jnp.tanh(x @ kernel - 1.0)

    x = X[:, 0, 0]
    onnx.to_onnx(fn, kernel, x, tmp_path / "a.onnx")
    np.testing.assert_allclose(
        onnx.load(tmp_path / "a.onnx")(x), fn(kernel, x), rtol=1e-4, atol=1e-5
    )
