"""Transposes that cancel are gone, the others stay, and the file computes the same."""

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
X = RNG.normal(size=(2, 7, 5, 3)).astype(np.float32)
KERNEL = RNG.normal(size=(3, 3, 3, 3)).astype(np.float32)
WIDE = RNG.normal(size=(7, 1, 3)).astype(np.float32)


def conv(kernel, x):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def pool(x):
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME")


# between two convolutions, and how many transposes are left
BETWEEN = {
    "activations": (lambda y: jnp.tanh(y) * nn.sigmoid(y) + 0.5, 2),
    "two branches": (
        lambda y: jnp.concatenate([y, pool(y), nn.max_pool(y, (2, 1), padding="SAME")[:, :1]], 1),
        2,
    ),
    "arrays": (lambda y: jnp.where(y > 0, y * WIDE[None], y - WIDE[None, :1]), 2),
    "slices and padding": (
        lambda y: jnp.pad(jnp.flip(y[:, 2:, :4], 3), ((0, 0), (0, 3), (1, 0), (0, 0))),
        2,
    ),
    "a gate of each map": (lambda y: y * nn.sigmoid(y.mean((1, 2), keepdims=True)), 2),
    "a sum of channels": (lambda y: y / (y**2).sum(-1, keepdims=True), 4),
    "what is read in both orders": (
        lambda y: conv(KERNEL, z := nn.relu(conv(KERNEL, y))) * jnp.sin(z.reshape(-1, 105)).mean(),
        6,
    ),
    "a product": (lambda y: y @ WIDE[:3, 0], 4),
}


@pytest.mark.promotes
@pytest.mark.parametrize("name", BETWEEN)
def test_transposes_cancel_around_what_does_not_mind_them(tmp_path, name):
    between, left = BETWEEN[name]

    def fn(kernel, x):
        return conv(kernel, between(conv(kernel, x)))

    onnx.to_onnx(fn, KERNEL, X, tmp_path / "a.onnx")
    nodes = reader.load(tmp_path / "a.onnx").graph.node
    assert Counter(node.op_type for node in nodes)["Transpose"] <= left
    assert len({node.name for node in nodes}) == len(nodes)
    wanted = fn(KERNEL, X)
    np.testing.assert_allclose(onnx.load(tmp_path / "a.onnx")(X), wanted, rtol=1e-3, atol=1e-3)


def test_the_mean_of_all_places_needs_no_transpose(tmp_path):
    def fn(kernel, x):
        return pool(nn.relu(conv(kernel, x))).mean((1, 2))

    onnx.to_onnx(fn, KERNEL, X, tmp_path / "a.onnx")
    found = Counter(node.op_type for node in reader.load(tmp_path / "a.onnx").graph.node)
    assert (found["Transpose"], found["AveragePool"], found["Mul"], found["Div"]) == (1, 1, 0, 1)
    np.testing.assert_allclose(
        onnx.load(tmp_path / "a.onnx")(X), fn(KERNEL, X), rtol=1e-4, atol=1e-5
    )


def test_what_a_loop_reads_from_outside_is_there(tmp_path):
    def fn(kernel, x):
        y = conv(kernel, x)

        def step(i, total):
            return total + jnp.where(total.sum() > 1e9, y[:, 0], i * y[:, 1])

        return jax.lax.fori_loop(0, 300, step, y[:, 0]), conv(kernel, y)

    onnx.to_onnx(fn, KERNEL, X, tmp_path / "a.onnx")
    found = list(onnx.load(tmp_path / "a.onnx")(X).values())
    for one, other in zip(fn(KERNEL, X), found, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-3)
