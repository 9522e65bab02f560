"""What the Edge TPU's compiler would take of a file, and how long that takes."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from morph.export import edge_tpu, tflite
from regularizers.costs.edge_tpu_operations import OPERATIONS
from regularizers.costs.edge_tpu_table import latency_s

pytest.importorskip("ai_edge_litert")

pytest.importorskip("ai_edge_quantizer")

pytest.importorskip("litert_converter")


class Late(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.silu(nn.Conv(4, (3, 3))(x))
        return nn.Dense(5)(nn.gelu(nn.Dense(4)(x)).mean((1, 2)))


def test_what_falls_to_the_cpu_is_told(tmp_path):
    x = np.random.default_rng(0).normal(size=(6, 8, 8, 4)).astype(np.float32)
    variables = jax.jit(Late().init)(jax.random.key(0), x)
    path = tmp_path / "a.tflite"
    tflite.to_tflite(Late().apply, variables, x, path, calibration=x)
    found = edge_tpu.placement(path)
    reasons = [place.reason for place in found.places]
    first = next(i for i, reason in enumerate(reasons) if reason)
    assert first > 0
    assert found.places[first].op == "FULLY_CONNECTED"  # of 64 rows
    assert "one row is mapped, found 64" in reasons[first]
    assert all("comes after FULLY_CONNECTED" in reason for reason in reasons[first + 1 :])
    assert "CPU: FULLY_CONNECTED" in str(found)


def test_the_latency_is_the_cost_models_own(tmp_path):
    module = nn.Conv(70, (3, 3), strides=2)
    x = np.random.default_rng(0).normal(size=(3, 10, 14, 5)).astype(np.float32)
    variables, path = jax.jit(module.init)(jax.random.key(0), x), tmp_path / "a.tflite"
    tflite.to_tflite(module.apply, variables, x, path, calibration=x)
    sizes = {"in_h": 10, "in_w": 14, "in_c": 5, "out_h": 5, "out_w": 7, "out_c": 70}
    layer = {"op": "conv", **sizes, "kernel_h": 3, "kernel_w": 3, "stride": 2}
    wanted = latency_s([layer], 10 * 14 * 5, 5 * 7 * 70)
    assert edge_tpu.placement(path).seconds == pytest.approx(wanted)


def test_the_table_is_that_of_the_cost_model():
    assert {name for name, _ in edge_tpu._NAMES.values()} <= set(OPERATIONS)
    assert set(edge_tpu._LIMITS) <= set(OPERATIONS)
