"""ONNX in 8 bits: small, close to the floats, and what each layer loses is told."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from morph.export import ExportError, onnx_int8, to_onnx, to_onnx_int8

reader = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(50, 8, 8, 3)).astype(np.float32)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(40, (3, 3), name="first")(x)))
        x = nn.relu(nn.Conv(48, (3, 3), strides=2, name="second")(x))
        return nn.Dense(7, name="last")(x.mean((1, 2)))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8")
    variables = Net().init(jax.random.key(0), IMAGES[:1])
    whole = to_onnx(Net().apply, variables, IMAGES[:3], folder / "a.onnx")
    small = to_onnx_int8(Net().apply, variables, IMAGES[:3], folder / "b.onnx", calibration=IMAGES)
    return variables, whole, small


def test_a_file_of_int8_is_small_and_close(made):
    variables, whole, small = made
    assert small.batch is None
    assert small.size_bytes < 0.4 * whole.size_bytes
    kernels = {array.name: array.data_type for array in reader.load(small.path).graph.initializer}
    assert list(kernels.values()).count(reader.TensorProto.INT8) >= 3
    wanted = np.asarray(Net().apply(variables, IMAGES))
    found = onnx_int8.load(small.path)(IMAGES)
    assert np.linalg.norm(found - wanted) < 0.05 * np.linalg.norm(wanted)


def test_what_each_layer_loses_is_told_and_layers_stay_float(made, tmp_path):
    variables, _, small = made
    found = onnx_int8.errors(small.path)
    assert sorted(own.layer.split("/")[-1] for own in found) == ["first", "last", "second"]
    assert all(0 < own.error < 0.05 and not own.is_float for own in found)
    assert small.note == ""
    kept = to_onnx_int8(
        Net().apply, variables, IMAGES[:3], tmp_path / "a.onnx", calibration=IMAGES, keep=["*first"]
    )
    assert kept.size_bytes > small.size_bytes
    assert [own.layer[-5:] for own in onnx_int8.errors(kept.path) if own.is_float] == ["first"]


@pytest.mark.parametrize("gap", [1, 2])
def test_average_pools_between_products(tmp_path, gap):
    def fn(variables, x):
        x = nn.relu(jax.lax.conv_general_dilated(
            x, variables["a"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        )  # fmt: skip
        x = jax.lax.reduce_window(
            x,
            0.0,
            jax.lax.add,
            (1, 2, 2, 1),
            (1, 1, 1, 1),
            "VALID",
            window_dilation=(1, gap, gap, 1),
        )
        return x.mean((1, 2)) @ variables["b"]

    variables = {"a": RNG.normal(size=(3, 3, 3, 8)), "b": RNG.normal(size=(8, 4))}
    variables = {name: value.astype(np.float32) for name, value in variables.items()}
    path = tmp_path / "a.onnx"
    to_onnx_int8(fn, variables, IMAGES[:2], path, calibration=IMAGES)
    wanted = np.asarray(fn(variables, IMAGES))
    assert np.linalg.norm(onnx_int8.load(path)(IMAGES) - wanted) < 0.1 * np.linalg.norm(wanted)


def test_a_layer_that_loses_much_is_named(tmp_path):
    """One channel, which does not count, is so large that it takes all steps of the numbers."""
    kernel = RNG.normal(size=(6, 4)).astype(np.float32) * (np.arange(6) < 5)[:, None]
    x = RNG.normal(size=(40, 6)).astype(np.float32)

    def write(times, **options):
        wide = x * np.where(np.arange(6) < 5, 1, np.float32(times))
        return to_onnx_int8(
            lambda w, x: x @ w, kernel, x[:2], tmp_path / "a.onnx", calibration=wide, **options
        )

    assert "should stay float (keep=): MatMul" in write(12).note
    with pytest.raises(ExportError, match=r"off by .* of their norm\. The layers that move"):
        write(1e4)
    with pytest.raises(ExportError, match=r"off by .* with nearly all .*, not within 0\.01"):
        write(12, within=0.01)


def test_layers_stay_float_until_the_outputs_are_close(tmp_path):
    """The first product is as above; the second loses little."""
    first = RNG.normal(size=(6, 30)).astype(np.float32) * (np.arange(6) < 5)[:, None]
    weights = {"first": first, "second": RNG.normal(size=(30, 30)).astype(np.float32)}
    x = RNG.normal(size=(40, 6)).astype(np.float32) * (1, 1, 1, 1, 1, 12)

    def fn(weights, x):
        for name, kernel in weights.items():
            with jax.named_scope(name):
                x = x @ kernel
        return x

    told = to_onnx_int8(fn, weights, x[:2], tmp_path / "a.onnx", calibration=x, within=0.03)
    assert told.note == "float: first"
    wanted = fn(weights, x)
    off = np.linalg.norm(onnx_int8.load(told.path)(x) - wanted)
    assert off < 0.03 * np.linalg.norm(wanted)


def test_what_cannot_be_quantized_is_refused(tmp_path):
    kernel, x, path = np.ones((6, 4), np.float32), np.ones((2, 6), np.float32), tmp_path / "a.onnx"
    with pytest.raises(ExportError, match="representative inputs: arrays"):
        to_onnx_int8(lambda w, x: x @ w, kernel, x, path, calibration=x[:, :3])
    with pytest.raises(ExportError, match="of 0 products with known kernels"):
        to_onnx_int8(lambda w, x: x * 2, kernel, x, path, calibration=x)
    with pytest.raises(ExportError, match=r"keep='a/\*' matches no layer"):
        to_onnx_int8(lambda w, x: x @ w, kernel, x, path, calibration=x, keep=["a/*"])
    with pytest.raises(ExportError, match="not a file of to_onnx_int8"):
        onnx_int8.errors(to_onnx(lambda w, x: x @ w, kernel, x, path).path)
