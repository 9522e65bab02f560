"""What moves numbers means in ONNX what it means in JAX."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def at(x):
    """A place of every example."""
    return (x[:, 0, 0] * 9).astype(jnp.int32)


FUNCTIONS = {
    "moves": lambda x: jnp.flip(jnp.pad(x, ((0, 0), (1, 2), (0, 1)), constant_values=2.0), 1),
    "between": lambda x: lax.pad(x, 0.5, [(0, 0, 0), (1, -1, 2), (0, 2, 1)]),
    "parts": lambda x: jnp.split(x, [2], 1)[1] - lax.slice_in_dim(x, 0, 3, axis=1),
    "stack": lambda x: jnp.stack([x, x * 2], 1),
    "unstack": lambda x: jnp.stack(jnp.unstack(x, axis=1), -1),
    "tile": lambda x: jnp.tile(x, (1, 2, 3)),
    "repeat": lambda x: jnp.repeat(x, 2, 1),
    "counts": lambda x: x + jnp.arange(5.0)[None, :, None],
    "wide": lambda x: jnp.broadcast_to(x[:, None], (x.shape[0], 2, 5, 3)),
    "merged with the batch": lambda x: (x.reshape(-1, 3) @ jnp.ones((3, 2))).reshape(-1, 5, 2),
    "order": lambda x: jax.vmap(lambda one: jnp.reshape(one, (15,), order="F"))(x),
    "roll": lambda x: jnp.roll(x, 1, 1) + jnp.triu(x),
    "nothing": lambda x: jnp.concatenate([x[:, :0], x], 1),
    "empty": lambda x: x[:, :0].reshape(x.shape[0], 0, 3),
    "a part anywhere": lambda x: jax.vmap(lambda r, i: lax.dynamic_slice(r, (i, 0), (2, 2)))(
        x, at(x)
    ),
    "bits": lambda x: lax.bitcast_convert_type(x, jnp.float32),
    "bf16": lambda x: jnp.pad(x.astype(jnp.bfloat16), ((0, 0), (1, 0), (0, 0))),
    "edge": lambda x: jnp.pad(x, ((0, 0), (2, 1), (0, 0)), mode="edge"),
    "reflect": lambda x: jnp.pad(x, ((0, 0), (2, 1), (0, 0)), mode="reflect"),
    "wrap": lambda x: jnp.pad(x, ((0, 0), (2, 1), (0, 0)), mode="wrap"),
    "quarter turn": lambda x: jnp.rot90(x, axes=(1, 2)),
    "diagonal": lambda x: jnp.diagonal(x, axis1=1, axis2=2),
    "differences": lambda x: jnp.diff(x, axis=1),
    "repeats": lambda x: jnp.repeat(x, jnp.array([1, 0, 2, 1, 3]), 1, total_repeat_length=7),
    "truths": lambda x: jnp.concatenate([x > 0.5, jnp.flip(x < 0.2, 1)], 1)[:, ::2],
}
OF_ALL = {  # they are at one place for all examples
    "a slice": lambda x: lax.dynamic_slice_in_dim(x, at(x)[0], 2, 1),
    "an update": lambda x: lax.dynamic_update_slice(x, x[:, :2, :2] * 2, (0, at(x)[0], 1)),
    "an update of nothing": lambda x: lax.dynamic_update_slice(x, x * 2, (0, at(x)[0], 0)),
    "numbers": lambda x: x + jnp.arange(x.shape[0], dtype=jnp.float32)[:, None, None],
}  # fmt: skip


@pytest.mark.promotes
def test_shapes(agree):
    assert agree(FUNCTIONS).batch is None


@pytest.mark.promotes
def test_one_place_for_all_examples(agree):
    assert agree(OF_ALL).examples != "independent"
