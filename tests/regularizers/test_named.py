"""Costs by name."""

import jax
import jax.numpy as jnp
import pytest

import regularizers as reg
from regularizers import named
from regularizers.costs.calibrated import Calibration
from regularizers.named import COSTS, cost_named
from regularizers.vocabulary import check_name


@pytest.fixture(scope="module")
def graph():
    def fn(variables, x):
        return jax.nn.relu(x @ variables["a"]) @ variables["b"]

    variables = {"a": jnp.ones((5, 7)), "b": jnp.ones((7, 3))}
    return reg.trace_channels(fn, variables, jnp.ones((1, 5)))


@pytest.mark.parametrize("name", [name for name in COSTS if name != "here"])
def test_every_name_is_a_cost_of_the_graph(graph, name):
    cost = cost_named(graph, name)
    assert cost() > 0.0
    assert cost({"a": 1}) < cost()
    assert cost.unit


def test_sums(graph):
    flops, size = reg.flops(graph), reg.model_size(graph)
    assert cost_named(graph, "0.5*flops + 2 * flops")() == 2.5 * flops()
    mixed = cost_named(graph, "0.25*flops+0.75*size")
    assert mixed() == pytest.approx(1.0)
    widths = {"a": 3}
    expected = 0.25 * flops(widths) / flops() + 0.75 * size(widths) / size()
    assert mixed(widths) == pytest.approx(expected)
    assert check_name("size") == ((1.0, "size"),)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("flop", "no cost 'flop'; did you mean 'flops'"),
        ("flops+", r"no cost '' in 'flops\+'"),
        ("x*flops", "'x' in 'x[*]flops' is not a weight"),
        ("-1*flops", "is not a weight: it must be a number above 0"),
        ("0*flops", "is not a weight"),
        ("nan*flops", "is not a weight"),
        ("inf*flops", "is not a weight"),
    ],
)
def test_nonsense(graph, spec, message):
    with pytest.raises(ValueError, match=message):
        cost_named(graph, spec)


def test_latency_of_unknown_devices_lists_the_known(graph):
    with pytest.raises(ValueError, match=r"unknown device 'V10'; did you mean 'V100'.*All: edge_t"):
        reg.latency(graph, "V10")
    with pytest.raises(TypeError, match=r"device must be a name, a reg\.Device or what"):
        reg.latency(graph, 7)
    with pytest.raises(ValueError, match="device 'K80' has no peak for 'int8'"):
        reg.latency(graph, "K80", "int8")


def test_a_machine_is_timed_once_in_a_process(graph, monkeypatch):
    found = Calibration(
        seconds_per_unit={"call: calls": 1e-6}, cache_bytes=1e6, device="cpu", versions={},
        held_out_error=0.1, spread=0.1, error_bar=0.1, busy=True,
    )  # fmt: skip
    timed = []
    monkeypatch.setattr(named, "calibrate", lambda: timed.append(1) or found)
    monkeypatch.setattr(named, "latency", lambda graph, calibration: calibration)
    assert cost_named(graph, "here") is cost_named(graph, "here") is found
    assert timed == [1]
