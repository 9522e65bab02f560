"""The Edge TPU model on graphs: what is a layer, what is fused, and what the host runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

import regularizers as reg
from regularizers.costs.devices import DEVICES
from regularizers.costs.edge_tpu import EDGE_TPU, EdgeTPU
from regularizers.costs.edge_tpu_network import unsupported_kernels
from regularizers.costs.edge_tpu_table import latency_s
from regularizers.costs.form import SMOOTH
from regularizers.costs.work import workload_of

HOST = DEVICES["Cortex-A53"]


def traced(fn, variables, *inputs):
    return reg.trace_channels(fn, variables, *inputs)


def images(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def init(model, x):
    return jax.eval_shape(model.init, jax.random.key(0), x)


class Net(nn.Module):
    """Two convolutions and a residual sum, a mean over the map, and logits."""

    act: str = "relu"
    groups: int = 1

    @nn.compact
    def __call__(self, x):
        x = getattr(nn, self.act)(nn.Conv(24, (3, 3))(x))
        y = nn.relu(nn.Conv(24, (3, 3), feature_group_count=self.groups)(x))
        return nn.Dense(7)((x + y).mean((1, 2)))


def record(op, size, into, out, window):
    names = ("in_h", "in_w", "out_h", "out_w", "in_c", "out_c", "kernel_h", "kernel_w", "stride")
    return {"op": op, **dict(zip(names, (*size, *size, into, out, window, window, 1), strict=True))}


def test_a_graph_is_its_table_of_layers():
    x = images(1, 9, 13, 3)
    model = Net()
    cost = reg.latency(traced(model.apply, init(model, x), x), "edge_tpu")
    table = [
        record("conv", (9, 13), 3, 24, 3),
        record("conv", (9, 13), 24, 24, 3),
        record("add", (9, 13), 24, 24, 1),
        record("global_pool", (9, 13), 24, 24, 1) | {"out_h": 1, "out_w": 1},
        record("dense", (1, 1), 24, 7, 1),
    ]
    assert cost() == pytest.approx(latency_s(table, 9 * 13 * 3, 7), rel=1e-12)


def test_the_batch_does_not_count():
    model, x = Net(), images(1, 9, 13, 3)
    variables = init(model, x)
    one = reg.latency(traced(model.apply, variables, x), "edge_tpu")
    many = reg.latency(traced(model.apply, variables, images(5, 9, 13, 3)), "edge_tpu")
    assert one() == pytest.approx(many(), rel=1e-12)


def host_seconds(graph, first):
    """The roofline of all kernels from `first` on, with free elementwise ones."""
    load = workload_of(graph)
    work = load.at(np.asarray(list(graph.widths.values()), float))
    traffic = np.where(load.facts.kind == "elementwise", 0.0, work.elements)
    each = np.maximum(work.flops / HOST.peak("int8"), traffic / HOST.bytes_per_s)
    return each[first:].sum()


def test_all_after_an_unsupported_operation_runs_on_the_host():
    x = images(1, 9, 13, 3)
    model = Net(act="elu")  # its choices and expm1 are not mapped
    graph = traced(model.apply, init(model, x), x)
    reasons = unsupported_kernels(workload_of(graph))
    assert [bool(reason) for reason in reasons[:3]] == [False, True, False]
    assert "becomes no TFLite operation" in reasons[1]
    cost = reg.latency(graph, "edge_tpu")
    alone = latency_s([record("conv", (9, 13), 3, 24, 3)], 9 * 13 * 3, 9 * 13 * 24)
    assert cost() == pytest.approx(alone + host_seconds(graph, 1), rel=1e-9)
    details = [row.detail for row in cost.table()]
    assert [detail.endswith("(host)") for detail in details[:3]] == [False, True, True]


def test_what_begins_on_the_host_has_no_start():
    def fn(variables, x):
        return jax.nn.relu(jnp.sin(x) @ variables["a"]) @ variables["b"]

    variables = {"a": images(5, 8), "b": images(8, 3)}
    graph = traced(fn, variables, images(1, 5))
    cost = reg.latency(graph, "edge_tpu")
    assert cost() == pytest.approx(host_seconds(graph, 0), rel=1e-9)
    assert cost.table()[-1].cost == 0.0


def test_a_grouped_convolution_is_for_the_host_until_it_is_depthwise():
    x = images(1, 9, 13, 3)
    model = Net(groups=12)
    graph = traced(model.apply, init(model, x), x)
    cost = reg.latency(graph, "edge_tpu")
    name = next(name for name, width in graph.widths.items() if width in (2, 12))
    on_host = cost.table()[2].cost
    assert on_host == pytest.approx(host_seconds(graph, 2) - host_seconds(graph, 3))
    assert cost() > reg.latency(traced(Net().apply, init(Net(), x), x), "edge_tpu")() * 0.5
    assert name in cost.groups


def test_means_over_channels_are_mapped_for_multiples_of_four():
    def fn(variables, x):
        h = jax.nn.relu(x @ variables["a"])
        return (h - h.mean(-1, keepdims=True)) @ variables["b"]

    variables = {"a": images(5, 8), "b": images(8, 3)}
    graph = traced(fn, variables, images(1, 5))
    cost = reg.latency(graph, "edge_tpu")

    def on_host(width):
        return [row.cost for row in cost.table({"a": width})][-2]  # the last product

    per_layer = EDGE_TPU.instruction_bytes / EDGE_TPU.bytes_per_s
    assert on_host(4) > per_layer  # on the Edge TPU it has an instruction
    assert on_host(3) < per_layer / 10.0  # on the host only its few numbers


def test_loops_are_for_the_host():
    def fn(variables, x):
        h = lax.fori_loop(0, 3, lambda _, h: jax.nn.relu(h @ variables["w"]), x @ variables["a"])
        return h @ variables["b"]

    variables = {"a": images(5, 8), "w": images(8, 8), "b": images(8, 3)}
    graph = traced(fn, variables, images(1, 5))
    reasons = unsupported_kernels(workload_of(graph))
    assert "control flow is not mapped" in reasons
    assert reg.latency(graph, "edge_tpu")() > 0.0


def test_smooth_gradient_equals_finite_differences():
    x = images(1, 9, 13, 3)
    model = Net(act="elu")
    cost = reg.latency(traced(model.apply, init(model, x), x), "edge_tpu")
    widths = cost.vector()
    gradient = np.asarray(cost.marginal(widths))
    for i in range(len(widths)):
        step = np.eye(len(widths))[i] * 0.01
        ends = [cost.of_vector(widths + sign * step, SMOOTH) for sign in (1.0, -1.0)]
        assert gradient[i] == pytest.approx((ends[0] - ends[1]) / 0.02, rel=1e-3)
        assert gradient[i] > 0.0


def test_constants_of_ones_own():
    x = images(1, 9, 13, 3)
    graph = traced(Net().apply, init(Net(), x), x)
    slow = reg.latency(graph, EdgeTPU(startup_s=1.0))
    assert slow() == pytest.approx(
        reg.latency(graph, "edge_tpu")() + 1.0 - EDGE_TPU.startup_s, rel=1e-9
    )
