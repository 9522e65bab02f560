"""Roofline latency: by hand, with named sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import regularizers as reg

B, M, N, K = 2, 5, 7, 3
LAYOUT = ("NHWC", "HWIO", "NHWC")
# One FLOP a second and one byte a second, and devices that lack one of them.
EVEN, FAST_MEMORY, FAST_ALU = (
    reg.Device(name=name, peak_flops_per_s={"float32": f, "int8": f}, bytes_per_s=b, source="test")
    for name, f, b in (("even", 1.0, 1.0), ("memory", 1.0, 1e9), ("alu", 1e9, 1.0))
)


def struct(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def traced(fn, *inputs, **weights):
    variables = {name: struct(*shape) for name, shape in weights.items()}
    return reg.trace_channels(fn, variables, *(inputs or (struct(B, M),)))


def perceptron():
    return traced(lambda v, x: jax.nn.relu(x @ v["a"]) @ v["c"], a=(M, N), c=(N, K))


def seconds(n, device):
    """Of the perceptron with n hidden channels; relu is fused and free."""
    first = 2 * B * M * n, 4 * (B * M + M * n + B * n)
    second = 2 * B * n * K, 4 * (B * n + n * K + B * K)
    peak, bandwidth = device.peak("float32"), device.bytes_per_s
    return sum(max(f / peak, b / bandwidth) for f, b in (first, second))


@pytest.mark.parametrize("device", [EVEN, FAST_MEMORY, FAST_ALU, reg.DEVICES["V100"]])
@pytest.mark.parametrize("n", [N, 1, 0])
def test_products_by_hand(device, n):
    cost = reg.latency(perceptron(), device)
    assert cost({"a": n}) == pytest.approx(seconds(n, device), rel=1e-12)
    assert cost.unit == "s"


def test_the_larger_side_counts():
    """Fast memory leaves the FLOPs, a fast array leaves the bytes."""
    graph = perceptron()
    assert reg.latency(graph, FAST_MEMORY)() == reg.flops(graph)()
    traffic = 4 * (B * M + M * N + 2 * B * N + N * K + B * K)
    assert reg.latency(graph, FAST_ALU)() == traffic


def test_a_convolution_by_hand():
    h, w, k, i, o = 8, 6, 3, 4, 5

    def fn(v, x):
        x = lax.conv_general_dilated(x, v["k"], (2, 2), "SAME", dimension_numbers=LAYOUT)
        return x.mean((1, 2))

    graph = traced(fn, struct(1, h, w, i), k=(k, k, i, o))
    out = (h // 2) * (w // 2) * o
    assert reg.latency(graph, FAST_MEMORY)() == 2 * out * k * k * i + 4 * (out + o) / 1e9
    assert reg.latency(graph, FAST_ALU)() == 4 * (h * w * i + k * k * i * o + out) + 4 * (out + o)
    (conv, mean) = (row for row in reg.latency(graph, FAST_ALU).table() if row.cost)
    assert (conv.layer, conv.detail) == ("k", "conv 3x3")
    assert mean.cost == 4 * (out + o)  # traffic alone


def test_a_transformer_block_moves_its_attention():
    """softmax(q k) u: two batched products whose operands are all activations."""
    t, d = 11, 3

    def fn(v, x):
        q, k, u = x @ v["q"], x @ v["k"], x @ v["u"]
        return jnp.einsum("bqk,bkd->bqd", jnp.einsum("bqd,bkd->bqk", q, k), u) @ v["o"]

    graph = traced(fn, struct(B, t, M), q=(M, d), k=(M, d), u=(M, d), o=(d, K))
    products = [r.cost for r in reg.latency(graph, FAST_ALU).table() if r.detail == "product"]
    assert products == [4 * (2 * B * t * d + B * t * t)] * 2


def test_a_loop_pays_every_turn():
    def fn(v, x):
        return lax.scan(lambda h, _: (h @ v["b"], None), x @ v["a"], length=9)[0] @ v["c"]

    graph = traced(fn, a=(M, N), b=(N, N), c=(N, K))
    rows = {row.layer: row.cost for row in reg.latency(graph, FAST_ALU).table()}
    assert rows["b"] == 9 * 4 * (2 * B * N + N * N)


def test_types_have_their_own_peaks_and_bytes():
    graph, a100 = perceptron(), reg.DEVICES["A100"]
    for dtype, size in (("float32", 4), ("float16", 2), ("int8", 1)):
        cost = reg.latency(graph, "A100", dtype)
        traffic = size * (B * M + M * N + 2 * B * N + N * K + B * K)
        assert cost() == pytest.approx(traffic / a100.bytes_per_s, rel=1e-12)
        assert cost.name == f"latency_A100_{dtype}"
    # Without float32, a device's first type.
    assert reg.latency(graph, "TPUv4").name == "latency_TPUv4_bfloat16"


def test_smooth_is_at_most_nine_per_cent_above():
    graph = perceptron()
    ridge = 2 * B * M * N / (4 * (B * M + M * N + B * N))  # the first product is on the ridge
    even = reg.Device(
        name="ridge", peak_flops_per_s={"float32": ridge}, bytes_per_s=1.0, source="test"
    )
    for device in (EVEN, FAST_ALU, FAST_MEMORY, even):
        cost = reg.latency(graph, device)
        assert cost() * (1 - 1e-12) <= cost.smooth() <= cost() * 2 ** (1 / 8)
    first = reg.latency(graph, even).of_layers("a")
    assert first.smooth() == pytest.approx(first() * 2 ** (1 / 8), rel=1e-12)


@pytest.mark.parametrize("device", [EVEN, FAST_MEMORY, FAST_ALU])
def test_gradient_of_smooth_equals_finite_differences(device):
    cost = reg.latency(perceptron(), device)
    step = 1e-4
    difference = (cost.smooth({"a": N + step}) - cost.smooth({"a": N - step})) / (2 * step)
    (slope,) = cost.marginal([N])
    assert difference > 0
    np.testing.assert_allclose(slope, difference, rtol=1e-5)


def test_gradient_at_no_width_is_finite():
    assert np.isfinite(reg.latency(perceptron(), EVEN).marginal([0.0])).all()


def test_unknown_devices_list_the_known():
    with pytest.raises(ValueError, match=r"unknown device 'V10'; did you mean 'V100'.*All: .*T4"):
        reg.latency(perceptron(), "V10")
    with pytest.raises(TypeError, match=r"device must be a name, .* found 3"):
        reg.latency(perceptron(), 3)


def test_types_without_a_peak_are_refused():
    with pytest.raises(ValueError, match="device 'K80' has no peak for 'int8'"):
        reg.latency(perceptron(), "K80", "int8")
