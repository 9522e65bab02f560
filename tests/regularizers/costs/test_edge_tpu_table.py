import math

import pytest

from regularizers.costs.edge_tpu import (
    EDGE_TPU,
    EdgeTPU,
    steps,
)
from regularizers.costs.edge_tpu_table import latency_s, layers_of
from regularizers.costs.form import EXACT

# One second per step, and per byte.
PLAIN = EdgeTPU(
    clock_hz=1.0,
    utilisation=1.0,
    depthwise_steps=7.0,
    bytes_per_s=1.0,
    startup_s=1000.0,
    cache_bytes=100.0,
    instruction_bytes=0.0,
    overlap=0.0,
    cache_rounding_bytes=5.0,
)


def record(op="conv", **sizes):
    usual = {
        "in_h": 9, "in_w": 9, "in_c": 5, "out_h": 9, "out_w": 9, "out_c": 7, "kernel_h": 3,
        "kernel_w": 3, "stride": 1,
    }  # fmt: skip
    return {"op": op, **usual, **sizes}


def test_a_table_by_hand():
    table = [
        record("conv", in_h=17, in_w=10, in_c=3, out_h=9, out_w=5, out_c=65, kernel_w=5, stride=2),
        record("depthwise_conv", in_h=9, in_w=5, in_c=65, out_h=9, out_w=5, out_c=65),
        record("add", in_h=9, in_w=5, in_c=65, out_h=9, out_w=5, out_c=65, kernel_h=1, kernel_w=1),
        record("pool", in_h=9, in_w=5, in_c=65, out_h=5, out_w=3, out_c=65, stride=2),
        record("concat", in_h=5, in_w=3, in_c=65, out_h=5, out_w=3, out_c=65),
        record("resize", in_h=5, in_w=3, in_c=65, out_h=9, out_w=9, out_c=65, kernel_h=1,
               kernel_w=1),
        record("global_pool", in_h=9, in_w=9, in_c=65, out_h=1, out_w=1, out_c=65, kernel_h=9,
               kernel_w=9),
        record("dense", in_h=1, in_w=1, in_c=65, out_h=1, out_w=1, out_c=7, kernel_h=1,
               kernel_w=1),
    ]  # fmt: skip
    layers = layers_of(table)
    assert steps(layers, EXACT, PLAIN).tolist() == [
        6 * 15 * 1 * 2, 7 * 6 * 9 * 2, 6 * 2, 2 * 9 * 2, 0, 9 * 2, 81 * 2, 17 * 1,
    ]  # fmt: skip
    weights = [65 * (15 * 3 + 4), 65 * (9 + 4), 0, 0, 0, 0, 0, 7 * (65 + 4)]
    assert layers.weight_bytes.tolist() == weights
    total = steps(layers, EXACT).sum() / (500e6 * EDGE_TPU.utilisation)
    sent = (17 * 10 * 3 + 7 + 8 * EDGE_TPU.instruction_bytes) / EDGE_TPU.bytes_per_s
    found = latency_s(iter(table), 17 * 10 * 3, 7)
    assert isinstance(found, float)
    assert found == pytest.approx(EDGE_TPU.startup_s + sent + total, rel=1e-12)


def test_what_does_not_fit_is_streamed():
    big = record("dense", in_h=1, in_w=1, in_c=4096, out_h=1, out_w=1, out_c=4096, kernel_h=1,
                 kernel_w=1)  # fmt: skip
    streamed = 4096 * 4100 / EDGE_TPU.bytes_per_s  # 16 MiB and biases
    computed = 1024 * 4 / (500e6 * EDGE_TPU.utilisation)
    found = latency_s([big], 0, 0) - EDGE_TPU.startup_s - 2000 / EDGE_TPU.bytes_per_s
    assert found == pytest.approx(streamed + computed / 2, rel=1e-9)


def without(key):
    found = record()
    del found[key]
    return found


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([record(), record("conv3d")], r"layers\[1\] has the unknown op 'conv3d'.*'global_pool'"),
        ([record(), without("out_c")], r"layers\[1\] has no 'out_c'; it has \['op', 'in_h'"),
        ([without("op")], r"layers\[0\] has no 'op'"),
        ([record(out_h=0)], r"layers\[0\] \(conv\) needs a whole number out_h >= 1, found 0"),
        ([record("pool", in_c=-3)], r"layers\[0\] \(pool\) .* in_c >= 1, found -3"),
        ([record(in_w=2.5)], r"in_w >= 1, found 2\.5"),
        ([record(stride=True)], "stride >= 1, found True"),
        ([record(out_c="64")], "out_c >= 1, found '64'"),
        ([["conv", 1, 2]], r"layers\[0\] must be a mapping"),
        ([], "at least one layer"),
    ],
)
def test_bad_tables(table, message):
    with pytest.raises(ValueError, match=message):
        latency_s(table, 1, 1)


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "many"])
def test_bad_bytes(value):
    with pytest.raises(ValueError, match="needs input_bytes >= 0, found"):
        latency_s([record()], value, 1)
    with pytest.raises(ValueError, match="needs output_bytes >= 0, found"):
        latency_s([record()], 1, value)
