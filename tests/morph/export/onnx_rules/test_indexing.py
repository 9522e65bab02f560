"""Gathers, scatters and sorting mean in ONNX what they mean in JAX, also out of bounds."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

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
    "promised": lambda x: x.at[:, places(0, 2)].get(mode="promise_in_bounds"),
    "the last": lambda x: x[:, -1] + x[..., -2:, :][:, 0],
    "each its own": lambda x: x[jnp.arange(x.shape[0]), jnp.abs(at(x)[:, 0]) % 5],
    "bf16": lambda x: x.astype(jnp.bfloat16)[:, places(0, 2)],
    "bilinear": lambda x: jax.image.resize(x, (x.shape[0], 8, 7), "bilinear"),
    "cubic, smaller": lambda x: jax.image.resize(x, (x.shape[0], 3, 2), "cubic"),
    "between": lambda x: jax.vmap(
        lambda one: jax.scipy.ndimage.map_coordinates(
            one, [jnp.arange(3.0) + 0.3, jnp.arange(3.0) / 2], 1
        )
    )(x),
    "in a table": lambda x: jnp.searchsorted(jnp.linspace(0, 1, 7), x),
    "bins": lambda x: jnp.digitize(x, jnp.linspace(0, 1, 5)),
    "interpolated": lambda x: jnp.interp(x, jnp.linspace(0, 1, 5), jnp.arange(5.0) ** 2),
    "nearest": lambda x: jax.image.resize(x, (x.shape[0], 10, 3), "nearest"),
}
SCATTERS = {
    "set": lambda x: x.at[:, 1].set(2.0) + x.at[:, places(1, 99)].set(7.0, mode="drop"),
    "add": lambda x: x.at[:, places(0, 2, 0)].add(1.0),
    "add clipped": lambda x: x.at[:, places(1, 99)].add(7.0, mode="clip"),
    "max": lambda x: x.at[:, places(0, 0, 3)].max(0.5) + x.at[:, places(0, 9)].min(0.3),
    "mul": lambda x: x.at[..., 1].mul(3.0),
    "sub": lambda x: x.at[:, 1].subtract(2.0) + x.at[:, 1].divide(2.0),
    "truths": lambda x: (x > 0.5).at[:, 0].set(True),
    "bf16": lambda x: x.astype(jnp.bfloat16).at[:, 0].add(1),
    "products": lambda x: jax.vmap(lambda row: jax.ops.segment_prod(row, places(0, 0, 1, 1, 2), 3))(
        x
    ),
    "per example": lambda x: jax.vmap(lambda row, i: row.at[i].add(row))(x, at(x)),
    "segments": lambda x: jax.vmap(lambda row: jax.ops.segment_max(row, places(0, 1, 0, 3, 9), 3))(
        x
    ),
    "integers": lambda x: at(x).at[:, places(0, 3)].add(2),
}
SORTED = {
    "two keys": lambda x: lax.sort((jnp.round(x), x[:, ::-1], x), dimension=1, num_keys=2)[2],
    "lexsort": lambda x: jnp.lexsort((x[:, :, 1], jnp.round(x[:, :, 0]))),
    "sort": lambda x: jnp.sort(x, 1),
    "descending": lambda x: jnp.sort(x, 1, descending=True),
    "argsort": lambda x: jnp.argsort(jnp.round(x * 3), 1),
    "integers": lambda x: jnp.sort(at(x), 1),
    "truths": lambda x: jnp.sort(x > 0.5, 1),
    "top_k": lambda x: lax.top_k(x, 2),
    "top_k of integers": lambda x: lax.top_k(at(x), 2),
    "top_k with ties": lambda x: lax.top_k(jnp.floor(x * 3), 3)[1],
    "about the largest": lambda x: lax.approx_max_k(x, 2),
    "about the smallest": lambda x: lax.approx_min_k(x, 2)[0],
    "two": lambda x: lax.sort((x[..., 0], x[..., 1]), dimension=1),
    "nan": lambda x: jnp.sort(jnp.log(x - 0.5), 1),
    "quantile": lambda x: jnp.quantile(x, 0.3, axis=1),
    "median": lambda x: jnp.median(x, 1),
}


@pytest.mark.promotes
@pytest.mark.parametrize(
    "functions", [GATHERS, SCATTERS, SORTED], ids=["gather", "scatter", "sort"]
)
def test_indexing(agree, functions):
    assert agree({k: lambda x, f=f: f(jnp.asarray(x)) for k, f in functions.items()}).batch is None
