"""Gathers, scatters and sorting mean in ONNX what they mean in JAX, also out of bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from morph.export import ExportError, onnx

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def at(x):
    """Places, some of them out of bounds."""
    return (x[:, :, 0] * 9).astype(jnp.int32) - 1


def places(*numbers):
    return jnp.asarray(numbers)


GATHERS = {
    "rows": lambda x: jnp.arange(12.0).reshape(6, 2)[(x[:, 0] * 6).astype(jnp.int32)],
    "shuffles": lambda x: x[:, places(4, 0, 3)] + x[:, :3][..., places(1, 2, 0)],
    "two axes": lambda x: x[:, places(0, 2), places(1, 2)],
    "filled": lambda x: jnp.take(x, places(0, 7, -2), axis=1, mode="fill", fill_value=7.0),
    "filled with nan": lambda x: jnp.arange(5.0)[at(x)] + jnp.take(jnp.arange(5.0), at(x)),
    "clipped": lambda x: jnp.take(jnp.arange(5.0), at(x), mode="clip"),
    "wrapped": lambda x: jnp.take(x, places(0, 7, -2), axis=1, mode="wrap"),
    "per example": lambda x: jax.vmap(lambda row, i: row[i])(x, at(x)),
    "along": lambda x: jnp.take_along_axis(x, jnp.argsort(x, 1), 1),
    "int16": lambda x: jnp.arange(10.0)[at(x).astype(jnp.int16)],
    "integers": lambda x: jnp.take(jnp.arange(5), at(x)),
    "truths": lambda x: jnp.take(jnp.arange(5) > 2, at(x)),
    "one hot": lambda x: jax.nn.one_hot(at(x), 5),
    "windows": lambda x: jax.vmap(
        lambda row: lax.gather(
            row, places(1, 2)[:, None], lax.GatherDimensionNumbers((1, 2), (), (0,)), (2, 3)
        )
    )(x),
    "nearest": lambda x: jax.image.resize(x, (x.shape[0], 10, 3), "nearest"),
}
SCATTERS = {
    "set": lambda x: x.at[:, 1].set(2.0) + x.at[:, places(1, 99)].set(7.0, mode="drop"),
    "add": lambda x: x.at[:, places(0, 2, 0)].add(1.0),
    "add clipped": lambda x: x.at[:, places(1, 99)].add(7.0, mode="clip"),
    "max": lambda x: x.at[:, places(0, 0, 3)].max(0.5) + x.at[:, places(0, 9)].min(0.3),
    "mul": lambda x: x.at[..., 1].mul(3.0),
    "per example": lambda x: jax.vmap(lambda row, i: row.at[i].add(row))(x, at(x)),
    "segments": lambda x: jax.vmap(lambda row: jax.ops.segment_max(row, places(0, 1, 0, 3, 9), 3))(
        x
    ),
    "integers": lambda x: at(x).at[:, places(0, 3)].add(2),
}
SORTED = {
    "sort": lambda x: jnp.sort(x, 1),
    "descending": lambda x: jnp.sort(x, 1, descending=True),
    "argsort": lambda x: jnp.argsort(jnp.round(x * 3), 1),
    "integers": lambda x: jnp.sort(at(x), 1),
    "truths": lambda x: jnp.sort(x > 0.5, 1),
    "top_k": lambda x: lax.top_k(x, 2),
    "median": lambda x: jnp.median(x, 1),
}


@pytest.mark.promotes
@pytest.mark.parametrize(
    "functions", [GATHERS, SCATTERS, SORTED], ids=["gather", "scatter", "sort"]
)
def test_indexing(agree, functions):
    assert agree({k: lambda x, f=f: f(jnp.asarray(x)) for k, f in functions.items()}).batch is None


def test_two_keys_are_refused(tmp_path):
    x = np.ones((2, 3), np.float32)
    with pytest.raises(ExportError, match=r"cannot write sort in .*: sorting by 2 keys"):
        onnx.to_onnx(lambda _, x: lax.sort((x, x), num_keys=2), {}, x, tmp_path / "a.onnx")
