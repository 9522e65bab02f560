"""Which variables are kernels, and what their axes are for."""

import jax
import jax.numpy as jnp
import numpy as np

import regularizers as reg
from morph.tensorize.layers import kernels_of, run


def struct(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_roles_of_the_axes():
    def fn(v, x, ids):
        x = jax.lax.conv(x, v["conv"], (1, 1), "SAME").mean((2, 3))
        x = x @ v["dense"].T + v["bias"].reshape(1, 7)  # transposed, so its roles are, too
        x = jnp.einsum("bni,bio->bno", jnp.stack([x] * 3), v["stack"]).sum((0, 1))
        x = jnp.tanh(v["bent"]) @ x
        return jnp.take(v["table"], ids, axis=0) @ x, v["tied"][ids], x @ v["tied"].T

    shapes = {"conv": (5, 3, 3, 2), "dense": (7, 5), "bias": (7,), "stack": (3, 7, 11)}
    shapes |= {"bent": (11, 11), "table": (13, 11), "tied": (17, 11)}
    variables = {name: struct(*shape) for name, shape in shapes.items()}
    ids = jax.ShapeDtypeStruct((4,), jnp.int32)
    found = kernels_of(reg.trace_channels(fn, variables, struct(2, 3, 6, 6), ids))
    assert {path: kernel.roles for path, kernel in found.items()} == {
        "conv": "oiss", "dense": "oi", "stack": "bio", "bent": "", "table": "io", "tied": "oi",
    }  # fmt: skip
    assert len(found["tied"].uses) == 2  # a product and a lookup: the product tells its roles
    assert found["bent"].dense_because.startswith("used by tanh [")
    assert not any(kernel.depthwise for kernel in found.values())


def test_a_window_for_each_channel_is_depthwise():
    def fn(v, x):
        return jax.lax.conv_general_dilated(x, v["k"], (1,), "SAME", feature_group_count=6)

    (kernel,) = kernels_of(reg.trace_channels(fn, {"k": struct(6, 1, 3)}, struct(2, 6, 9))).values()
    assert kernel.depthwise
    assert kernel.uses[0].groups == 6


def test_values_may_change_where_they_are_used(rng):
    """A watcher sees the operands of every use, and what it changes holds for all after it."""
    v = {name: rng.normal(size=(5, 5)).astype(np.float32) for name in ("a", "b")}
    x = rng.normal(size=(2, 5)).astype(np.float32)
    graph = reg.trace_channels(lambda v, x: jnp.tanh(x @ v["a"]) @ v["b"], v, x)
    changed = {}

    def watch(path, use, operands):
        if path == "a":
            np.testing.assert_array_equal(operands[0], x)
            changed["b"] = 2.0 * v["b"]

    (found,) = run(graph, [v["a"], v["b"], x], watch, changed=changed)
    np.testing.assert_allclose(found, np.tanh(x @ v["a"]) @ (2.0 * v["b"]), rtol=1e-5)
