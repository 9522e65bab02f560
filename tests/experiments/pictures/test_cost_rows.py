import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import regularizers as reg
from experiments.networks import build
from experiments.pictures import cost_plots, cost_rows
from regularizers.costs.calibrated import Calibration, amounts
from regularizers.costs.devices import DEVICES
from regularizers.costs.form import EXACT
from regularizers.costs.latency import latency
from regularizers.costs.work import workload_of
from regularizers.named import cost_named

pytest.importorskip("matplotlib")

COSTS = ("edge_tpu", "V100", "activation_peak", "flops")


class Chain(nn.Module):
    """More convolutions than there are rows; one of them is far the widest."""

    @nn.compact
    def __call__(self, x):
        for i in range(cost_rows.MOST_ROWS + 5):
            x = nn.Conv(32 if i == 7 else 4 + i % 3, (1, 1), use_bias=False)(x)
        return x


class Attention(nn.Module):
    """Products without a variable of their own, and blocks that are named like nothing else."""

    @nn.compact
    def __call__(self, x):
        y = nn.MultiHeadDotProductAttention(num_heads=5, name="attention")(nn.LayerNorm()(x))
        return nn.Dense(3)(x + y)


def trace(model, *shape):
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    return reg.trace_channels(model.apply, jax.eval_shape(model.init, jax.random.key(0), x), x)


@pytest.fixture(scope="module")
def resnet():
    return trace(build("resnet8", input_shape=(32, 32, 3), num_classes=5), 1, 32, 32, 3)


@pytest.fixture(scope="module")
def chain():
    return trace(Chain(), 1, 5, 7, 3)


def named(graph, *names):
    return {name: cost_named(graph, name) for name in names}


def axes_of(figure, title):
    (found,) = [ax for ax in figure.axes if ax.get_title(loc="left").startswith(title)]
    return found


@pytest.mark.parametrize("name", [*COSTS, "size", "energy", "0.5*size + 0.5*edge_tpu"])
def test_no_cost_is_lost(resnet, chain, name):
    for graph in (resnet, chain):
        bars = cost_rows.bars_of(graph, named(graph, name, "flops"))
        assert sum(bars.costs[name]) == pytest.approx(cost_named(graph, name)())


def test_every_kind_of_network_has_all_its_costs_and_products(network):
    graph = network.graph
    costs = named(graph, "size", "energy", "edge_tpu", "T4")
    bars = cost_rows.bars_of(graph, costs)
    assert set(graph.layers) <= set(bars.rows)
    for name, cost in costs.items():
        assert sum(bars.costs[name]) == pytest.approx(cost())
    for name in ("edge_tpu", "T4"):
        dots = cost_rows.roofline_of(graph, name, costs[name]).dots
        assert {dot.layer for dot in dots} == set(graph.layers)


def test_a_long_network_keeps_its_largest_rows_in_order(chain):
    bars = cost_rows.bars_of(chain, named(chain, "flops"))
    assert len(bars.rows) == cost_rows.MOST_ROWS + 1
    assert bars.rows[-1] == "5 others"
    assert bars.kinds == ("conv",) * cost_rows.MOST_ROWS + ("rest",)
    assert [*bars.rows[:-1]] == [layer for layer in chain.layers if layer in bars.rows]
    *shown, rest = bars.costs["flops"]
    assert "Conv_7" in bars.rows
    costs = sorted(row.cost for row in cost_named(chain, "flops").table())
    assert sorted(shown) == costs[5:]
    assert rest == sum(costs[:5])
    figure = cost_plots.draw_costs(chain, named(chain, "flops"))
    assert len(figure.axes[0].patches) == len(bars.rows)


def test_dots_lie_under_the_roof_of_a_device(resnet):
    cost = cost_named(resnet, "V100")
    roofline = cost_rows.roofline_of(resnet, "V100", cost)
    assert [dot.layer for dot in roofline.dots] == list(resnet.layers)
    peak, bandwidth = DEVICES["V100"].peak("float32"), DEVICES["V100"].bytes_per_s
    assert (roofline.peak_flops_per_s, roofline.bytes_per_s) == (peak, bandwidth)
    for dot in roofline.dots:  # a roofline latency is the most that is possible
        assert dot.flops_per_s == pytest.approx(min(peak, dot.flops_per_byte * bandwidth))
    booked = {layer: cost.of_layers(layer)() / cost.seed for layer in resnet.layers}
    assert {dot.layer: dot.share for dot in roofline.dots} == pytest.approx(booked)
    # By hand: 32 x 32 positions, 3 x 3 taps, 3 -> 16 channels; float32.
    first = roofline.dots[0]
    flops = 2 * 1024 * 9 * 3 * 16
    assert first.flops_per_byte == pytest.approx(flops / (4 * (1024 * 3 + 1024 * 16 + 9 * 3 * 16)))


def test_the_edge_tpu_and_this_machine_have_no_slope(resnet):
    edge = cost_rows.roofline_of(resnet, "edge_tpu", cost_named(resnet, "edge_tpu"))
    assert edge.peak_flops_per_s == pytest.approx(4.096e12)  # the vendor's 4 TOPS
    assert edge.bytes_per_s == 0
    assert all(0 < dot.flops_per_s < edge.peak_flops_per_s for dot in edge.dots)
    work = workload_of(resnet).at(np.asarray([*resnet.widths.values()], float))
    calibration = Calibration(
        seconds_per_unit=dict.fromkeys(amounts(work, EXACT, 1e6), 1e-10),
        cache_bytes=1e6,
        device="test",
        versions={},
        held_out_error=0.1,
        spread=0.1,
        error_bar=0.1,
    )
    here = {"here": latency(resnet, calibration)}
    roofline = cost_rows.roofline_of(resnet, "here", here["here"])
    assert roofline.peak_flops_per_s == roofline.bytes_per_s == 0
    assert [dot.layer for dot in roofline.dots] == list(resnet.layers)
    figure = cost_plots.draw_costs(resnet, here)
    assert axes_of(figure, "Achieved on this machine, float32").collections


def test_of_a_batch_the_edge_tpu_sees_one_example():
    (one,), (four,) = (
        cost_rows.roofline_of(graph, "edge_tpu", cost_named(graph, "edge_tpu")).dots
        for graph in (trace(nn.Conv(5, (3, 3)), batch, 8, 8, 3) for batch in (1, 4))
    )
    assert one == four
    # By hand: 8 x 8 positions, 3 x 3 taps, 3 -> 5 channels; int8.
    assert one.flops_per_byte == pytest.approx(2 * 64 * 9 * 15 / (64 * 3 + 64 * 5 + 9 * 15))


def test_sums_and_other_units_have_no_roofline(resnet):
    for name in ("flops", "size", "activation_bytes", "energy", "0.5*V100 + 0.5*T4", "2*V100"):
        assert cost_rows.roofline_of(resnet, name, cost_named(resnet, name)) is None


def test_what_is_no_product_goes_by_the_names_of_layers():
    graph = trace(Attention(), 1, 6, 10)
    names = {row.layer for row in cost_named(graph, "energy").table()}
    assert {"LayerNorm_0", "attention/query", "Dense_0"} <= names
    assert not any(name.startswith("Attention/LayerNorm") for name in names)
    bars = cost_rows.bars_of(graph, named(graph, "energy"))
    kinds = dict(zip(bars.rows, bars.kinds, strict=True))
    assert kinds["Dense_0"] == "dense"
    assert "product" in kinds.values()
    assert kinds["LayerNorm_0"] == "no product"


@pytest.mark.parametrize(
    ("unit", "value", "words"),
    [
        ("s", 1.2345e-3, "1.23 ms"),
        ("FLOP", 2.43e6, "2.43 MFLOP"),
        ("parameters", 78042, "78.0 k parameters"),
        ("x seed", 0.5, "0.5000 x seed"),
    ],
)
def test_costs_in_words(unit, value, words):
    assert cost_rows.in_words(value, unit) == words
