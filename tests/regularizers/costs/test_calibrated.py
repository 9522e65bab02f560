import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import regularizers as reg
from regularizers.costs.calibrated import CALL, Calibration, amounts
from regularizers.costs.form import EXACT, SMOOTH
from regularizers.costs.work import cost_of_work, workload_of

CACHE_BYTES = 4.0


def calibration(**changes):
    """One whose figures are easy to follow."""
    figures = {
        "seconds_per_unit": {CALL: 7.0, "conv: kernels": 3.0, "elementwise: operations": 0.5},
        "cache_bytes": CACHE_BYTES,
        "device": "a machine, 2 cores",
        "versions": {"jax": "1.2.3"},
        "date": "2026-01-02T03:04:05+00:00",
        "programs": 11,
        "held_out_error": 0.1,
        "spread": 0.02,
        "error_bar": 0.15,
    }
    return Calibration(**figures | changes)


def network(variables, x):
    """A convolution, relu, pooling, and a dense layer on the flattened map."""
    numbers = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(
        x, variables["conv"], (1, 1), "SAME", dimension_numbers=numbers
    )
    x = jnp.exp(jax.nn.relu(x))
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return x.reshape(x.shape[0], -1) @ variables["dense"]


def traced(batch=2, side=6, channels=5, features=18, window=3, units=7, fn=network):
    variables = {
        "conv": jnp.zeros((window, window, channels, features)),
        "dense": jnp.zeros(((side // 2) ** 2 * features, units)),
    }
    return reg.trace_channels(fn, variables, jnp.zeros((batch, side, side, channels)))


def table(graph, form=EXACT, cache_bytes=CACHE_BYTES):
    """What is not zero of all amounts."""
    work = workload_of(graph).at(np.asarray(list(graph.widths.values()), np.float64))
    found = amounts(work, form, cache_bytes)
    return {name: np.asarray(column).tolist() for name, column in found.items() if column.any()}


def test_amounts_by_hand():
    n, h, c, k, m, u = 2, 6, 5, 9, 18, 7  # batch, side, channels, taps, features, units
    positions, units_in = n * h * h, 9 * m
    conv, relu, pool, dense = range(4)
    weights = {"conv": k * c * m, "dense": units_in * u}
    in_all = 4 * sum(weights.values())
    far = in_all / (in_all + CACHE_BYTES)
    expected = {
        CALL: {conv: 1},
        "conv: kernels": {conv: 1},
        "conv: flops": {conv: 2 * positions * k * c * 32},  # 18 features fill two steps of 16
        "conv: ragged": {conv: positions * k},  # 5 is no multiple of 4, 18 none of 64
        "conv: read": {conv: positions * c},
        "conv: written": {conv: positions * m},
        "conv: weights": {conv: weights["conv"]},
        "conv: far_weights": {conv: weights["conv"] * far},
        "elementwise: kernels": {relu: 1},
        "elementwise: moved": {relu: 2 * positions * m},
        "elementwise: operations": {relu: 2 * positions * m},  # max and exp
        "elementwise: transcendentals": {relu: positions * m},
        "tiled pool: kernels": {pool: 1},
        "tiled pool: read": {pool: positions * m},
        "dense: kernels": {dense: 1},
        "dense: flops": {dense: 2 * n * units_in * 16},
        "dense: read": {dense: n * units_in},
        "dense: written": {dense: n * u},
        "dense: weights": {dense: weights["dense"]},
        "dense: far_weights": {dense: weights["dense"] * far},
    }
    found = table(traced())
    assert found.keys() == expected.keys()
    for name, column in expected.items():
        assert found[name] == pytest.approx([column.get(i, 0) for i in range(4)]), name


def test_smooth_amounts_have_no_steps():
    exact, smooth = table(traced()), table(traced(), SMOOTH)
    assert exact.keys() - smooth.keys() == {"conv: ragged"}
    assert smooth["conv: flops"][0] == pytest.approx(exact["conv: flops"][0] * 18 / 32)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "conv"),
        ({"features": 16}, "narrow conv"),
        ({"window": 1}, "pointwise conv"),
        ({"window": 1, "features": 4}, "pointwise conv"),
        ({"side": 2}, "cramped conv"),  # a 3x3 window on a 2x2 map
    ],
)
def test_kinds_of_convolutions(changes, kind):
    found = {name.split(":")[0] for name in table(traced(**changes))}
    assert {k for k in found if "conv" in k} == {kind}


@pytest.mark.parametrize(
    ("channels", "features", "window", "kind"),
    [
        (20, 20, 3, "depthwise conv"),
        (5, 5, 3, "narrow depthwise conv"),
        (20, 20, 9, "cramped depthwise conv"),
        (5, 30, 3, "multiplied depthwise conv"),
        (5, 10, 3, "narrow multiplied depthwise conv"),
    ],
)
def test_kinds_of_depthwise_convolutions(channels, features, window, kind):
    def depthwise(variables, x):
        return jax.lax.conv_general_dilated(
            x,
            variables["kernel"],
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=channels,
        )

    variables = {"kernel": jnp.zeros((window, window, 1, features))}
    graph = reg.trace_channels(depthwise, variables, jnp.zeros((2, 6, 6, channels)))
    assert {name.split(":")[0] for name in table(graph)} == {"call", kind}


@pytest.mark.parametrize(("rows", "kind"), [(1, "vector dense"), (2, "dense")])
def test_one_row_is_a_kind_of_its_own(rows, kind):
    graph = reg.trace_channels(
        lambda v, x: x @ v["w"], {"w": jnp.zeros((5, 7))}, jnp.zeros((rows, 5))
    )
    assert {name.split(":")[0] for name in table(graph)} == {"call", kind}


def test_weights_lie_further_away_the_more_there_are():
    near = table(traced(), cache_bytes=1e12)["dense: far_weights"][-1]
    far = table(traced(), cache_bytes=1.0)["dense: far_weights"][-1]
    weights = table(traced())["dense: weights"][-1]
    assert near < 1e-3 * weights
    assert far == pytest.approx(weights, rel=1e-3)


def test_erfc_is_told_from_other_functions():
    def gelu(variables, x):
        return jnp.tanh(jax.nn.gelu(x @ variables["w"], approximate=False))

    graph = reg.trace_channels(gelu, {"w": jnp.zeros((5, 7))}, jnp.zeros((3, 5)))
    found = table(graph)
    assert sum(found["elementwise: costly"]) == pytest.approx(3 * 7)
    assert sum(found["elementwise: transcendentals"]) == pytest.approx(3 * 7)


def test_seconds_are_prices_times_amounts():
    graph = traced()
    prices = {name: float(k) for k, name in enumerate(table(graph), 1)}
    cost = cost_of_work(graph, "latency", "s", calibration(seconds_per_unit=prices).seconds)
    expected = sum(prices[name] * sum(column) for name, column in table(graph).items())
    assert cost() == pytest.approx(expected)
    assert reg.latency(graph, calibration(seconds_per_unit=prices))() == pytest.approx(expected)


def test_seconds_have_a_gradient():
    graph = traced()
    prices = dict.fromkeys(table(graph), 1e-9)
    cost = reg.latency(graph, calibration(seconds_per_unit=prices))
    widths = {name: jnp.asarray(float(width)) for name, width in graph.widths.items()}
    gradient = jax.jit(jax.grad(cost))(widths)
    assert all(value > 0.0 for value in gradient.values())


def test_what_was_not_timed_has_no_price():
    graph = traced()
    prices = dict.fromkeys(table(graph).keys() - {"tiled pool: read"}, 1e-9)
    cost = reg.latency(graph, calibration(seconds_per_unit=prices))
    with pytest.raises(ValueError, match=r"a machine, 2 cores has no price for 'tiled pool: read'"):
        cost()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cache_bytes": 0.0}, "cache_bytes must be finite and above 0, found 0.0 B"),
        ({"cache_bytes": -1.0}, "cache_bytes must be finite and above 0"),
        ({"spread": math.nan}, "spread must be finite and at least 0, found nan"),
        ({"error_bar": math.inf}, "error_bar must be finite"),
        ({"held_out_error": -0.1}, "held_out_error must be finite and at least 0, found -0.1"),
        ({"held_out_error": "little"}, "held_out_error must be a number, found 'little'"),
        ({"seconds_per_unit": {}}, "at least one price above zero"),
        ({"seconds_per_unit": {CALL: 0.0}}, "at least one price above zero"),
        ({"seconds_per_unit": {CALL: 1.0, "x: y": -1.0}}, "price of 'x: y' must .* found -1.0 s"),
        ({"seconds_per_unit": {CALL: 1.0, "x: y": math.nan}}, "price of 'x: y' must be finite"),
    ],
)
def test_unphysical_figures(changes, message):
    with pytest.raises(ValueError, match=message):
        calibration(**changes)


def test_is_immutable():
    frozen = calibration()
    with pytest.raises(dataclasses.FrozenInstanceError):
        frozen.spread = 0.5
    with pytest.raises(TypeError):
        frozen.seconds_per_unit["x"] = 1.0


def test_file_round_trip(tmp_path):
    path = tmp_path / "deep" / "here.json"
    calibration().save(path)
    assert Calibration.load(path) == calibration()
    assert Calibration.from_json(calibration().to_json()) == calibration()


def edited(**changes):
    return json.dumps(json.loads(calibration().to_json()) | changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a calibration, and no JSON"),
        ("{", "not a calibration, and no JSON"),
        ("[1]", 'does not say "format"'),
        ('{"format": "morph architecture 1"}', 'does not say "format": "morph calibration 1"'),
        (edited(colour="red"), r"missing or unknown entries \['colour'\]"),
        (edited(spread=-1.0), "spread must be finite and at least 0"),
        (edited(seconds_per_unit=[1.0]), "not a calibration: "),
        (edited(versions=None), "not a calibration: "),
    ],
)
def test_other_files(tmp_path, text, message):
    path = tmp_path / "here.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        Calibration.load(path)
    assert str(caught.value).startswith(str(path))


def test_a_binary_file(tmp_path):
    path = tmp_path / "here.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"here\.json"):
        Calibration.load(path)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        Calibration.load(tmp_path / "none.json")
