import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morph.export import ExportError, onnx

pytest.importorskip("onnx")


pytest.importorskip("onnxruntime")


class Everything(nn.Module):
    """Strides, groups, dilation, both pools, a concatenation, a residual, attention."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu6(nn.Conv(6, (3, 3), strides=2, padding=1)(x))
        x = x + nn.Conv(6, (3, 3), feature_group_count=3, kernel_dilation=2)(x)
        pooled = nn.max_pool(x, (3, 3), (1, 1), "SAME"), nn.avg_pool(x, (3, 3), padding="SAME")
        x = jnp.concatenate(pooled, -1)
        x = nn.silu(nn.BatchNorm(use_running_average=True)(x))
        x = x.reshape(x.shape[0], -1, 12)
        x = nn.gelu(nn.LayerNorm()(x))
        return nn.Dense(3)(nn.MultiHeadDotProductAttention(2)(x, x).mean(1))


@pytest.mark.promotes
def test_a_network_runs_in_onnxruntime_at_any_batch(tmp_path):
    module, rng = Everything(), np.random.default_rng(0)
    x = rng.normal(size=(5, 9, 7, 2)).astype(np.float32)
    variables = jax.jit(module.init)(jax.random.key(0), x)
    written = onnx.to_onnx(module.apply, variables, x[:2], tmp_path / "a.onnx")
    assert (written.batch, written.note) == (None, "")
    wanted = np.asarray(jax.jit(module.apply)(variables, x))
    found = onnx.load(written.path)(x)
    assert np.max(np.abs(found - wanted)) < 1e-5 * np.max(np.abs(wanted))


X = np.random.default_rng(1).uniform(0.1, 0.9, (4, 5, 3)).astype(np.float32)


def test_an_unknown_operation_is_named_with_its_layer(tmp_path):
    class Sorted(nn.Module):
        @nn.compact
        def __call__(self, x):
            with jax.named_scope("ranking"):
                return jnp.sort(x, axis=-1)

    with pytest.raises(ExportError, match=r"sort in Sorted/ranking.*test_onnx\.py.*StableHLO"):
        onnx.to_onnx(Sorted().apply, {"params": {}}, X, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"no such thing")
    with pytest.raises(ExportError, match="cannot read"):
        onnx.load(tmp_path / "a.onnx")
