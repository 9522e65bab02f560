import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morph.export import ExportError, edge_tpu, flatbuffer, tflite

pytest.importorskip("ai_edge_litert")


pytest.importorskip("ai_edge_quantizer")


pytest.importorskip("litert_converter")


class Net(nn.Module):
    """Depthwise and plain convolutions, a residual, towers, both pools, a mean, a dense layer."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (3, 3), strides=2, padding=1, use_bias=False)(x)
        x = nn.relu6(nn.BatchNorm(use_running_average=True)(x))
        y = nn.relu(nn.Conv(8, (3, 3), feature_group_count=8)(x))
        x = x + nn.Conv(8, (1, 1))(y)
        average = nn.avg_pool(x, (3, 3), padding="SAME")
        x = jnp.concatenate([nn.relu(nn.Conv(4, (1, 1))(average)), x], -1)
        x = nn.max_pool(x, (2, 2), (2, 2))
        return nn.Dense(5)(x.mean((1, 2)))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    module, rng = Net(), np.random.default_rng(0)
    x = rng.normal(size=(24, 16, 12, 3)).astype(np.float32)
    variables = jax.jit(module.init)(jax.random.key(0), x)
    path = tmp_path_factory.mktemp("tflite") / "net.tflite"
    written = tflite.to_tflite(module.apply, variables, x[:1], path, calibration=x)
    return written, np.asarray(jax.jit(module.apply)(variables, x)), x


def test_every_operation_is_a_quantized_builtin(exported):
    written, _, _ = exported
    graph = flatbuffer.read(written.path.read_bytes())
    names = {op.name for op in graph.operations}
    assert names == {
        "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D",
        "FULLY_CONNECTED", "MAX_POOL_2D", "MEAN", "PAD",
    }  # fmt: skip
    for tensor in (*graph.inputs, *graph.outputs):
        assert tensor.dtype == "INT8"
        assert len(tensor.scale) == len(tensor.zero_point) == 1
    assert graph.inputs[0].shape == (1, 16, 12, 3)
    computed = [tensor for op in graph.operations for tensor in op.outputs]
    assert {tensor.dtype for tensor in computed} == {"INT8"}


def test_it_computes_what_jax_computes_up_to_rounding(exported):
    written, wanted, x = exported
    assert written.batch == 1
    found = tflite.load(written.path)(x)
    assert found.shape == wanted.shape
    assert np.max(np.abs(found - wanted)) < 0.05 * np.max(np.abs(wanted))


def test_the_edge_tpu_takes_all_of_it(exported):
    written, _, _ = exported
    found = edge_tpu.placement(written.path)
    assert not found.on_cpu
    assert 0.4e-3 < found.seconds < 1e-3
    assert f"{len(found.places)} of {len(found.places)} operations mapped" in str(found)


@pytest.mark.parametrize(
    ("layer", "why"),
    [(lambda x: jnp.sort(x, -1), "sort in .*STABLEHLO_SORT"), (jnp.sin, "sin in .*SIN has no")],
)
def test_an_operation_without_int8_form_is_named_with_its_layer(layer, why, tmp_path):
    class Odd(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(4, (3, 3))(x)
            with jax.named_scope("odd"):
                return layer(x).mean((1, 2))

    x = np.ones((2, 4, 4, 1), np.float32)
    variables = jax.jit(Odd().init)(jax.random.key(0), x)
    with pytest.raises(ExportError, match=why) as caught:
        tflite.to_tflite(Odd().apply, variables, x, tmp_path / "a.tflite", calibration=x)
    assert "Odd/odd" in str(caught.value)
    assert "test_tflite.py" in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("calibration", "why"),
    [
        (np.zeros((0, 4, 4, 1)), "representative data .*found none"),
        ([], "representative data .*found none"),
        (np.zeros((3, 5, 4, 1)), r"shape \[3, 5, 4, 1\]; the network takes \[M, 4, 4, 1\]"),
        (np.full((3, 4, 4, 1), np.nan), "not finite"),
    ],
)
@pytest.mark.wrong_arrays
def test_bad_representative_data_are_refused(calibration, why, tmp_path):
    x = np.ones((2, 4, 4, 1), np.float32)
    with pytest.raises(ExportError, match=why):
        tflite.to_tflite(lambda v, x: x, x, x, tmp_path / "a", calibration=calibration)
