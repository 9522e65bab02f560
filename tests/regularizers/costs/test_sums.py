"""Sums and weighted sums of costs, parts of a cost, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import regularizers as reg
from regularizers.costs.cost import SEEDS, Line, multilinear

B, M, N, H, K = 2, 5, 7, 11, 3
VARIABLES = {
    name: jax.ShapeDtypeStruct(shape, jnp.float32)
    for name, shape in {"a": (M, N), "up": (N, H), "down": (H, N), "c": (N, K)}.items()
}
X = jax.ShapeDtypeStruct((B, M), jnp.float32)
WIDTHS = {"a": 4, "up": 3}


def fn(v, x):
    h = x @ v["a"]
    return (h + jax.nn.relu(h @ v["up"]) @ v["down"]) @ v["c"]


@pytest.fixture(scope="module")
def graph():
    return reg.trace_channels(fn, VARIABLES, X)


@pytest.fixture(scope="module")
def costs(graph):
    return {
        "flops": reg.flops(graph),
        "size": reg.model_size(graph),
        "bytes": reg.model_size(graph, "float32"),
        "peak": reg.activation_bytes(graph, peak=True),
        "V100": reg.latency(graph, "V100"),
        "T4": reg.latency(graph, "T4"),
        "energy": reg.energy(graph),
    }


# Units


def test_one_unit_stays(costs):
    both = 0.25 * costs["V100"] + 0.75 * costs["T4"]
    assert both.unit == "s"
    assert both(WIDTHS) == pytest.approx(
        0.25 * costs["V100"](WIDTHS) + 0.75 * costs["T4"](WIDTHS), rel=1e-14
    )
    memory = costs["bytes"] + costs["peak"]  # all that a device must hold
    assert (memory.unit, memory()) == ("B", costs["bytes"]() + costs["peak"]())


def test_different_units_count_as_ratios_to_the_seed(costs):
    both = 0.5 * costs["flops"] + 0.3 * costs["V100"]
    assert both.unit == SEEDS == "x seed"
    assert both() == pytest.approx(0.8, rel=1e-14)
    expected = 0.5 * costs["flops"](WIDTHS) / costs["flops"]()
    expected += 0.3 * costs["V100"](WIDTHS) / costs["V100"]()
    assert both(WIDTHS) == pytest.approx(expected, rel=1e-14)
    assert str(both) == "0.5 flops + 0.3 latency_V100_float32: 0.8000 x seed"


def test_a_multiple(costs):
    twice = 2 * costs["flops"]
    assert (twice.unit, twice()) == ("FLOP", 2 * costs["flops"]())
    assert (twice * 0.5)() == costs["flops"]()
    assert (np.float32(0.5) * costs["flops"])() == (costs["flops"] * np.float64(0.5))()
    assert (0 * costs["flops"])() == 0.0


# Algebra


@pytest.mark.parametrize(("p", "q", "r"), [("flops", "size", "V100"), ("V100", "T4", "flops")])
def test_sums_are_associative_and_commutative(costs, p, q, r):
    p, q, r = costs[p], costs[q], costs[r]
    values = [(s.unit, s(WIDTHS)) for s in ((p + q) + r, p + (q + r), (r + p) + q, sum([p, q, r]))]
    assert {unit for unit, _ in values} == {SEEDS}
    np.testing.assert_allclose([value for _, value in values], values[0][1], rtol=1e-14)


def test_weights_distribute(costs):
    p, q = costs["flops"], costs["size"]
    assert (3 * (p + 2 * q))(WIDTHS) == pytest.approx((3 * p + 6 * q)(WIDTHS), rel=1e-14)


def test_sum_of_a_list(costs):
    assert sum([costs["flops"]]) is costs["flops"]
    mixed = sum(0.25 * costs[name] for name in ("flops", "size", "V100", "energy"))
    assert mixed() == pytest.approx(1.0, rel=1e-14)


# Tables, gradients, and use


def test_the_table_of_a_sum_adds_up(costs):
    for total in (
        0.5 * costs["flops"] + 0.5 * costs["size"],
        costs["V100"] + costs["T4"],
        2 * costs["V100"],
    ):
        for widths in (None, WIDTHS):
            table = total.table(widths)
            assert sum(row.cost for row in table) == pytest.approx(total(widths), rel=1e-14)
            assert sum(row.share for row in table) == pytest.approx(1.0, rel=1e-14)
    table = (0.5 * costs["flops"] + 0.5 * costs["size"]).table()
    assert {row.detail.split(":")[0] for row in table} == {"flops", "model_size"}
    text = str(table).splitlines()
    assert text[0].split() == ["layer", "detail", "x", "seed", "share"]
    assert len(set(map(len, text))) == 1


def test_the_table_has_a_unit_that_suits(costs):
    assert "us" in str(costs["V100"].table(WIDTHS)).splitlines()[0].split()
    assert costs["V100"].show(1.25e-3) == "1.250 ms"
    assert costs["V100"].show(12.0) == "12.000 s"
    assert costs["energy"].show(3e-6) == "3.000 uJ"
    assert costs["flops"].show(12345.0) == "12,345 FLOP"


def test_the_gradient_of_a_sum_is_the_sum_of_gradients(costs):
    p, q = costs["flops"], costs["V100"]
    total = 0.5 * p + 0.25 * q
    widths = [float(w) for w in p.groups.values()]
    expected = 0.5 * p.marginal(widths) / p() + 0.25 * q.marginal(widths) / q()
    np.testing.assert_allclose(total.marginal(widths), expected, rtol=1e-5)


def test_smooth_of_a_sum_is_the_sum_of_smooths(costs):
    p, q = costs["peak"], costs["V100"]
    expected = p.smooth({"a": 3.5}) / p() + q.smooth({"a": 3.5}) / q()
    assert (p + q).smooth({"a": 3.5}) == pytest.approx(expected, rel=1e-14)


def test_a_regularizer_pays_for_a_sum(graph, costs):
    rng = np.random.default_rng(0)
    variables = {
        name: jax.device_put(rng.normal(size=s.shape).astype(np.float32))
        for name, s in VARIABLES.items()
    }
    parts = costs["flops"], costs["V100"]
    both = reg.NetworkRegularizer(graph, 0.5 * parts[0] + 0.5 * parts[1], threshold=0.0)
    alone = [reg.NetworkRegularizer(graph, cost, threshold=0.0) for cost in parts]
    terms = jax.jit(lambda v: [term(v) for term in alone])(variables)
    term, gradient = jax.jit(jax.value_and_grad(both))(variables)
    np.testing.assert_allclose(term, sum(terms) / 2, rtol=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in gradient.values())


# Parts


def test_some_layers_of_a_cost(costs):
    cost = costs["flops"]
    assert cost.of_layers("a", "c")() == 2 * B * M * N + 2 * B * N * K
    assert cost.of_layers("up")(WIDTHS) == 2 * B * 4 * 3
    assert cost.of_layers("a").name == "flops of a"
    layers = {line.layer for line in cost.lines}
    assert sum(cost.of_layers(layer)() for layer in layers) == cost()
    part = (0.5 * cost + 0.5 * costs["size"]).of_layers("up", "down")
    assert 0.0 < part() < 1.0
    assert part.unit == SEEDS


def test_a_layer_without_costs_is_refused(costs):
    with pytest.raises(KeyError, match="flops counts nothing for 'dwn'; did you mean 'down'"):
        costs["flops"].of_layers("a", "dwn")


# What is refused


def test_costs_of_different_graphs_do_not_add(costs):
    wider = {**VARIABLES, "up": jax.ShapeDtypeStruct((N, H + 1), jnp.float32)}
    wider |= {"down": jax.ShapeDtypeStruct((H + 1, N), jnp.float32)}
    other = reg.flops(reg.trace_channels(fn, wider, X))
    with pytest.raises(ValueError, match=r"cannot add flops to flops: .* of different graphs"):
        costs["flops"] + other


def test_costs_with_their_groups_in_another_order_do_not_add():
    """Vectors of widths have an order: 10 a and 10 b would be confused."""
    line = Line(layer="one", detail="")
    first = multilinear({"a": 4, "b": 6}, "toy", "coins", [(line, (10.0, ("a",)))])
    other = multilinear({"b": 6, "a": 4}, "toy", "coins", [(line, (10.0, ("a",)))])
    assert first() == other() == 40.0
    with pytest.raises(ValueError, match="cannot add toy to toy"):
        first + other


def test_a_seed_that_costs_nothing_is_no_measure(costs):
    free = multilinear(costs["flops"].groups, "free", "coins", [])
    with pytest.raises(ValueError, match=r"cannot add free .* its seed costs 0"):
        costs["flops"] + free


@pytest.mark.parametrize(
    "weight", [-1, -0.5, float("nan"), float("inf"), "2", None, 1j, np.ones(2)]
)
def test_weights_that_are_none_are_refused(costs, weight):
    with pytest.raises(ValueError, match="a weight of a cost must be a number of at least 0"):
        costs["flops"] * weight


def test_only_costs_are_added(costs):
    for other in (1, 1.5, "flops"):
        with pytest.raises(TypeError, match="unsupported operand"):
            costs["flops"] + other
    with pytest.raises(TypeError, match="unsupported operand"):
        1 + costs["flops"]


@pytest.mark.parametrize("name", ["flops", "peak", "V100", "energy"])
def test_bad_widths_are_refused(costs, name):
    cost = costs[name]
    with pytest.raises(ValueError, match="the width of 'a' must be at least 0, found -1"):
        cost({"a": -1})
    with pytest.raises(ValueError, match=r"the width of 'a' must be at least 0, found -0\.5"):
        cost.smooth({"a": -0.5})
    with pytest.raises(
        ValueError, match=r"'a' must be a whole number, found 2\.5; cost\.smooth\(widths\) takes"
    ):
        cost({"a": 2.5})
    with pytest.raises(ValueError, match="must be a whole number"):
        cost.table({"a": np.float32(2.5)})
    with pytest.raises(KeyError, match="no channel group 'upp'; did you mean 'up'"):
        cost({"upp": 3})
    with pytest.raises(KeyError, match="no channel group 'upp'"):
        cost.smooth({"upp": 3})
    for width in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"'a' must be at least 0, found {width}"):
            cost({"a": width})
    assert cost({"a": 2.0}) == cost({"a": np.int64(2)}) < cost()
    assert cost.smooth({"a": 2}) < cost.smooth({"a": 2.5}) < cost.smooth({"a": 3})
