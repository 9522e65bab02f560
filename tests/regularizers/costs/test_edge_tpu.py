import dataclasses
import json
import math
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import fit_edge_tpu
from regularizers.costs import edge_tpu
from regularizers.costs.edge_tpu import (
    EDGE_TPU,
    KINDS,
    OPERATIONS,
    PRIMITIVES,
    EdgeTPU,
    Layers,
    first_unsupported,
    latency_s,
    layers_of,
    seconds,
    steps,
    uncached_bytes,
    unsupported,
)
from regularizers.costs.form import EXACT, SMOOTH

ROOT = Path(__file__).parents[3]

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
PUBLISHED = fit_edge_tpu.read_published()
NETWORKS = {network.key: network for network in PUBLISHED}

every_network = pytest.mark.parametrize("key", NETWORKS)


def layer(kind, *, map=(1, 1), in_map=None, window=1, channels=(8, 8), weight_bytes=0.0):
    height, width = map
    in_height, in_width = in_map or map
    return {
        "kind": kind, "window": window, "height": height, "width": width,
        "in_height": in_height, "in_width": in_width, "in_channels": channels[0],
        "out_channels": channels[1], "weight_bytes": weight_bytes,
    }  # fmt: skip


def stack(*entries):
    columns = {name: [entry[name] for entry in entries] for name in entries[0]}
    kind = np.asarray(columns.pop("kind"), dtype=object)
    return Layers(kind=kind, **{name: np.asarray(c, float) for name, c in columns.items()})


def record(op="conv", **sizes):
    usual = {
        "in_h": 9, "in_w": 9, "in_c": 5, "out_h": 9, "out_w": 9, "out_c": 7, "kernel_h": 3,
        "kernel_w": 3, "stride": 1,
    }  # fmt: skip
    return {"op": op, **usual, **sizes}


# ---- One layer, by hand. A map of 9 x 5 has 3 x 2 tiles of 4 x 4.

STEPS = {
    # 6 tiles, 15 taps, 7 inputs in steps of 4, 65 outputs in steps of 64
    "conv": ({"map": (9, 5), "window": 15, "channels": (7, 65)}, 6 * 15 * 2 * 2),
    "grouped conv": ({"map": (9, 5), "window": 9, "channels": (5, 130)}, 6 * 9 * 2 * 3),
    # 4 x 4 taps reach 9 x 5 positions from 3 x 5 ones: 16/3 taps each
    "transposed conv": (
        {"map": (9, 5), "in_map": (3, 5), "window": 16, "channels": (3, 7)},
        6 * 16 / 3 * 1 * 1,
    ),
    # 257 inputs in steps of 4, 17 blocks of 64 outputs in steps of 16
    "dense": ({"channels": (257, 1025)}, 65 * 2),
    # 7 rows of 2 blocks of 64: 14 of the 16 places of a step
    "product": ({"map": (7, 1), "channels": (11, 128)}, 3 * 1),
    "depthwise conv": ({"map": (9, 5), "window": 9, "channels": (1, 65)}, 7 * 6 * 9 * 2),
    "pool": ({"map": (9, 5), "in_map": (18, 10), "window": 6, "channels": (65, 65)}, 6 * 6 * 2),
    "reduce": ({"map": (1, 1), "in_map": (7, 5), "channels": (129, 129)}, 35 * 3),
    "elementwise": ({"map": (9, 5), "channels": (11, 11)}, 6 * 1),
    "resize": ({"map": (9, 5), "in_map": (3, 2), "channels": (11, 65)}, 6 * 2),
    "move": ({"map": (9, 5), "channels": (64, 64)}, 6 * 1),
    "concatenate": ({"map": (9, 5), "channels": (64, 64)}, 0),
}


def test_every_kind_has_a_case():
    assert set(STEPS) == set(KINDS)


@pytest.mark.parametrize("kind", STEPS)
def test_steps_by_hand(kind):
    sizes, expected = STEPS[kind]
    layers = stack(layer(kind, **sizes))
    assert steps(layers, EXACT, PLAIN) == pytest.approx([expected], rel=1e-12)
    per_layer, fixed = seconds(layers, 300, 20, EXACT, PLAIN)
    assert per_layer == pytest.approx([expected], rel=1e-12)
    assert fixed == 1320.0


@pytest.mark.parametrize("kind", STEPS)
def test_without_steps_every_part_is_paid(kind):
    sizes, _ = STEPS[kind]
    into, out = sizes["channels"]
    whole = {**sizes, "channels": (4 * into, 1024 * out)}  # whole steps of channels
    (found,) = steps(stack(layer(kind, **sizes)), SMOOTH, PLAIN)
    products = kind not in ("depthwise conv", "pool", "reduce", "elementwise", "resize", "move")
    share = 4096 if products else 1024
    assert steps(stack(layer(kind, **whole)), SMOOTH, PLAIN) == pytest.approx([share * found])
    if kind not in ("dense", "product"):  # rows are in steps too
        assert steps(stack(layer(kind, **whole)), EXACT, PLAIN) == pytest.approx([share * found])


@pytest.mark.parametrize(
    ("name", "step"), [("out_channels", edge_tpu.STEP), ("in_channels", edge_tpu.IN_STEP)]
)
def test_channels_come_in_steps(name, step):
    widths = np.arange(1, 3 * step + 2)
    one = stack(*[layer("conv", map=(7, 7), window=9, channels=(1, 1)) for _ in widths])
    found = steps(dataclasses.replace(one, **{name: widths.astype(float)}), EXACT)
    assert (found / found[0]).tolist() == [-(-w // step) for w in widths]


def test_the_steps_are_the_ones_that_widths_are_rounded_to():
    assert (edge_tpu.STEP, edge_tpu.IN_STEP) == (64, 4)


def test_a_layer_without_channels_costs_nothing():
    tpu = dataclasses.replace(PLAIN, instruction_bytes=9.0)
    gone = layer("conv", map=(9, 5), window=9, channels=(0, 7))
    gone_too = layer("elementwise", map=(9, 5), channels=(7, 0))
    per_layer, _ = seconds(stack(gone, gone_too, layer("move")), 0, 0, EXACT, tpu)
    assert per_layer.tolist() == [0.0, 0.0, 10.0]


def test_no_layers():
    empty = Layers(**{f.name: np.zeros(0) for f in dataclasses.fields(Layers)})
    per_layer, fixed = seconds(empty, 1, 1, EXACT, PLAIN)
    assert per_layer.shape == (0,)
    assert fixed == 1002.0


# ---- The cache, and what overlaps. It holds 100 bytes.


def whole_layers(weights, room):
    """The obvious way."""
    streamed = []
    for weight in weights:
        if weight <= room:
            room -= weight
            streamed.append(0.0)
        else:
            streamed.append(weight)
    return streamed


@pytest.mark.parametrize(
    ("weights", "streamed"),
    [
        ([40.0, 60.0], [0, 0]),  # exactly full
        ([40.0, 61.0], [0, 61.0]),  # a whole layer, for one byte
        ([70.0, 40.0, 30.0, 1.0], [0, 40.0, 0, 1.0]),  # what fits behind it is kept
        ([101.0, 100.0], [101.0, 0]),
        ([0.0, 0.0], [0, 0]),
    ],
)
@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_the_cache_keeps_whole_layers_in_order(weights, streamed, array):
    assert uncached_bytes(array(weights), EXACT, PLAIN).tolist() == streamed
    compiled = jax.jit(lambda w: uncached_bytes(w, EXACT, PLAIN))
    assert compiled(jnp.asarray(weights)).tolist() == streamed


def test_the_cache_against_the_obvious_way(rng):
    compiled = jax.jit(lambda w: uncached_bytes(w, EXACT, PLAIN))
    for _ in range(30):
        weights = rng.integers(0, 60, 11).astype(float)
        expected = whole_layers(weights.tolist(), 100.0)
        assert uncached_bytes(weights, EXACT, PLAIN).tolist() == expected
        assert compiled(jnp.asarray(weights)).tolist() == expected


def test_a_smooth_cache_streams_a_part_of_all():
    far = uncached_bytes(np.asarray([300.0, 100.0]), SMOOTH, PLAIN)
    assert far == pytest.approx([225.0, 75.0], rel=1e-9)  # 300 of 400
    full = uncached_bytes(np.asarray([75.0, 25.0]), SMOOTH, PLAIN)
    assert full.sum() == pytest.approx(5.0 * math.log(2.0))
    assert uncached_bytes(np.asarray([10.0, 5.0]), SMOOTH, PLAIN).sum() < 1e-6
    assert uncached_bytes(np.zeros(2), SMOOTH, PLAIN).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("overlap", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("weights", [0.0, 250.0, 9000.0])
def test_the_shorter_hides_behind_the_longer(overlap, weights):
    tpu = dataclasses.replace(PLAIN, overlap=overlap)
    layers = stack(
        layer("conv", map=(9, 5), window=15, channels=(7, 65)),  # 360 steps
        layer("elementwise", map=(9, 5)),  # 6
        layer("dense", channels=(4, 64), weight_bytes=weights),  # 1
    )
    per_layer, _ = seconds(layers, 0, 0, EXACT, tpu)
    expected = 367 + weights - overlap * min(367, weights)
    assert per_layer.sum() == pytest.approx(expected, rel=1e-12)
    assert (per_layer > 0).all()
    assert per_layer[0] / per_layer[1] == pytest.approx(60.0)  # taken off all alike


# ---- Both forms, numpy and JAX


def priced(network, form):
    """Seconds as a function of what depends on widths."""

    def total(amounts):
        into, out, weights = amounts
        layers = dataclasses.replace(
            network.layers, in_channels=into, out_channels=out, weight_bytes=weights
        )
        per_layer, fixed = seconds(layers, network.input_bytes, network.output_bytes, form)
        return per_layer.sum() + fixed

    of = network.layers
    return total, np.stack([of.in_channels, of.out_channels, of.weight_bytes])


@pytest.mark.parametrize("key", ["mobilenet_v2_1.0_224", "densenet121_224", "vgg16_224"])
def test_jax_agrees_with_numpy(key):
    for form in (EXACT, SMOOTH):
        total, amounts = priced(NETWORKS[key], form)
        assert isinstance(total(amounts), float)
        compiled = jax.jit(total)(jnp.asarray(amounts))
        assert float(compiled) == pytest.approx(total(amounts), rel=1e-5)


@every_network
def test_smooth_is_close_below_exact(key):
    # Narrow layers do not fill a step. DenseNet 121 has the most of them: 32 channels in 58 layers.
    exact, amounts = priced(NETWORKS[key], EXACT)
    smooth, _ = priced(NETWORKS[key], SMOOTH)
    assert 0.78 < smooth(amounts) / exact(amounts) < 1.0


@pytest.mark.parametrize("key", ["mobilenet_v2_1.0_224", "resnet50_299", "vgg16_224"])
def test_the_gradient_is_the_marginal_cost(key, rng):
    total, amounts = priced(NETWORKS[key], SMOOTH)
    gradient = np.asarray(jax.jit(jax.grad(total))(jnp.asarray(amounts)), np.float64)
    assert np.isfinite(gradient).all()
    assert (gradient >= 0).all()
    for _ in range(5):
        direction = rng.uniform(-1.0, 1.0, amounts.shape) * amounts
        differences = (total(amounts + 1e-4 * direction) - total(amounts - 1e-4 * direction)) / 2e-4
        assert (gradient * direction).sum() == pytest.approx(differences, rel=1e-4, abs=1e-7)


def test_a_layer_more_makes_it_no_faster():
    for network in PUBLISHED:
        count, totals = len(network.layers.kind), []
        for n in (count // 2, count):
            part = {f.name: getattr(network.layers, f.name)[:n] for f in dataclasses.fields(Layers)}
            per_layer, _ = seconds(Layers(**part), 0, 0, EXACT)
            assert (per_layer >= 0).all()
            totals.append(per_layer.sum())
        assert totals[0] < totals[1]


def test_it_is_quick():
    network = NETWORKS["inception_v4_299"]  # 188 layers
    times = []
    for _ in range(20):
        start = time.perf_counter()
        seconds(network.layers, 1, 1, EXACT)
        times.append(time.perf_counter() - start)
    assert min(times) < 1e-3  # measured: 0.1 ms


# ---- A plain table


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


def test_bad_layers():
    with pytest.raises(ValueError, match=r"no kind of layer \['gather'\]; .*'depthwise conv'"):
        stack(layer("gather"))
    with pytest.raises(ValueError, match="arrays of one length"):
        dataclasses.replace(stack(layer("conv")), window=np.ones(2))


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(EdgeTPU)])
def test_bad_constants(field):
    for value in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"must be positive and finite.*{field}={value}"):
            EdgeTPU(**{field: value})


def test_shares_are_at_most_one():
    with pytest.raises(ValueError, match=r"at most 1; found utilisation=1\.5, overlap=2"):
        EdgeTPU(utilisation=1.5, overlap=2)
    with pytest.raises(ValueError, match="found clock_hz=0"):
        EdgeTPU(clock_hz=0)


# ---- What was published


@pytest.fixture(scope="module")
def report():
    return fit_edge_tpu.make_report(PUBLISHED)


def test_accuracy_on_the_rows_that_are_trusted(report):
    ours = report["accuracy"]["edge_tpu"]
    for way in ("in_sample", "left_out", "family_out"):
        assert ours["trusted"][way]["rows"] == 15
        assert ours["all"][way]["rows"] == 17
        assert ours["trusted"][way]["median_error"] <= 0.10
        assert ours["trusted"][way]["mean_error"] <= 0.15
        assert ours["trusted"][way]["spearman"] >= 0.97
        for rows in ("trusted", "all"):
            for baseline in ("log_macs", "log_parameters"):
                theirs = report["accuracy"][baseline][rows][way]
                assert ours[rows][way]["median_error"] < theirs["median_error"]
                assert ours[rows][way]["mean_error"] < theirs["mean_error"]
                assert ours[rows][way]["spearman"] > theirs["spearman"]
    for name, constant in report["constants"].items():  # these are the fitted ones, to 3 digits
        assert constant["now"] == float(f"{constant['now']:.3g}"), name
        assert constant["now"] == pytest.approx(constant["refitted"], rel=2e-3), name


def test_the_table_of_a_network_and_the_report_agree(report):
    squeezenet = next(row for row in report["networks"] if row["key"] == "squeezenet10_224")
    network = NETWORKS["squeezenet10_224"]
    per_layer, fixed = seconds(network.layers, 224 * 224 * 3, 1001, EXACT)
    assert squeezenet["predicted_ms"] == pytest.approx(1e3 * (per_layer.sum() + fixed), rel=1e-12)
    assert squeezenet["error"] == pytest.approx(squeezenet["predicted_ms"] / 2.1 - 1.0)


def test_a_fit_finds_the_constants_that_made_the_data(rng):
    true = dataclasses.replace(
        EDGE_TPU, utilisation=0.61, depthwise_steps=5.3, bytes_per_s=290e6, startup_s=0.21e-3
    )
    trusted = [network for network in PUBLISHED if network.trusted]
    clean = [dataclasses.replace(n, seconds=fit_edge_tpu.predict(n, true)) for n in trusted]
    found = fit_edge_tpu.fit(clean)
    for name in fit_edge_tpu.FITTED:
        assert getattr(found, name) == pytest.approx(getattr(true, name), rel=1e-5)
    noisy = [dataclasses.replace(n, seconds=n.seconds * rng.lognormal(0.0, 0.1)) for n in clean]
    found = fit_edge_tpu.fit(noisy)
    predicted = np.asarray([fit_edge_tpu.predict(network, found) for network in clean])
    given, truth = (np.asarray([n.seconds for n in some]) for some in (noisy, clean))
    assert fit_edge_tpu.accuracy(given, predicted)["mean_error"] > 0.05
    assert fit_edge_tpu.accuracy(truth, predicted)["mean_error"] < 0.05  # it averages the noise


def test_a_row_is_left_out_of_its_own_prediction():
    """Of a 'fit' that remembers what it was fitted to."""
    a, b, c = (
        dataclasses.replace(PUBLISHED[0], key=key, family=family, seconds=s, trusted=trusted)
        for key, family, s, trusted in [
            ("a", "F", 1.0, True),
            ("b", "F", 10.0, True),
            ("c", "G", 100.0, False),
        ]
    )

    def fit_to(networks):
        total = sum(network.seconds for network in networks)
        return lambda network: total

    def by(related):
        return fit_edge_tpu.without([a, b, c], fit_to, related).tolist()

    assert by(lambda network: network.key) == [10.0, 1.0, 11.0]
    assert by(lambda network: network.family) == [0.0, 0.0, 11.0]


# ---- What runs on it


@pytest.mark.parametrize(
    ("kind", "facts", "reason"),
    [
        ("conv", {}, ""),
        ("conv", {"dilation": (3, 3)}, ""),
        ("conv", {"dilation": (1, 2)}, "the same dilation in x and y, found (1, 2)"),
        ("conv", {"groups": 3}, "grouped"),
        ("grouped conv", {}, "grouped"),
        ("depthwise conv", {"groups": 32}, ""),
        ("depthwise conv", {"dilation": (2, 1)}, "DepthwiseConv2d needs the same dilation"),
        ("transposed conv", {}, ""),
        ("dense", {}, ""),
        ("dense", {"rows": 7, "rank": 2}, "one row, found 7"),
        ("product", {}, "BatchMatMul is not mapped (field reports)"),
        ("conv", {"rank": 5}, "rank 5; at most 4"),
        ("elementwise", {"rank": 5, "primitives": ["add"]}, "rank 5"),
        ("concatenate", {}, ""),
        ("resize", {}, ""),
        ("pool", {"primitives": ["reduce_window_max"]}, ""),
        ("pool", {"primitives": ["reduce_window_min"]}, "reduce_window_min"),
        ("reduce", {"primitives": ["reduce_sum"]}, ""),
        ("reduce", {"primitives": ["reduce_sum"], "reduced_channels": 12}, ""),
        ("reduce", {"primitives": ["reduce_sum"], "reduced_channels": 10}, "multiple of 4"),
        ("reduce", {"primitives": ["argmax"]}, "argmax"),
        ("elementwise", {"primitives": ["sub", "rsqrt", "mul", "add", "max"]}, ""),
        ("elementwise", {"primitives": ["sub", "exp", "div"]}, ""),  # of a softmax
        ("elementwise", {"primitives": ["mul", "erf", "mul"]}, "erf becomes no TFLite"),
        ("elementwise", {"primitives": ["logistic", "tanh", "stop_gradient"]}, ""),
        ("elementwise", {"primitives": ["my_primitive"]}, "not in the table of primitives"),
        ("move", {"primitives": ["pad"]}, ""),
        ("move", {"primitives": ["transpose"]}, "transpose"),
        ("sort", {}, "sort becomes no TFLite"),
        ("ragged", {}, "ragged"),
    ],
)
def test_support(kind, facts, reason):
    found = unsupported(kind, **facts)
    assert bool(found) == bool(reason)
    assert reason in found


def test_every_kind_is_in_the_table_of_operations():
    for kind in KINDS:
        assert isinstance(unsupported(kind), str)  # raises no KeyError
    named = {op for op, _ in PRIMITIVES.values() if op}
    assert named <= set(OPERATIONS)
    assert all(OPERATIONS[op].maps for op in named)
    assert len(OPERATIONS) == 40


def test_the_first_layer_that_leaves_the_device():
    fine = ("conv", {})
    assert first_unsupported([fine, ("concatenate", {}), ("dense", {"rows": 1})]) is None
    assert first_unsupported([]) is None
    position, reason = first_unsupported([fine, fine, ("product", {}), ("grouped conv", {})])
    assert position == 2
    assert "BatchMatMul" in reason


def test_primitives_are_jaxs():
    def softmax_gelu(x):
        return jax.nn.softmax(jax.nn.gelu(x, approximate=True)) * jax.lax.rsqrt(x)

    names = {eqn.primitive.name for eqn in jax.make_jaxpr(softmax_gelu)(jnp.ones(5)).jaxpr.eqns}
    assert {"tanh", "exp", "rsqrt", "div"} <= names
    assert names <= set(PRIMITIVES)


def test_what_is_assumed_hardly_matters():
    some = {"overlap": (0.0,), "cache_bytes": (7.0 * 2**20,)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_edge_tpu, "ALTERNATIVES", some)
        found = fit_edge_tpu.make_alternatives(PUBLISHED)
    assert [(a["constant"], a["value"]) for a in found] == [
        ("overlap", 0.0),
        ("cache_bytes", 7 * 2**20),
    ]
    for alternative in found:
        assert alternative["rows"] == 15
        assert alternative["mean_error"] < 0.08


# ---- The command


def test_the_command_reads_other_tables(tmp_path, capsys):
    table, networks = tmp_path / "table.csv", tmp_path / "networks.json"
    rows, records = ["network,key,usb3_latency_ms,trusted"], []
    for n in (8, 64, 256, 512, 1024, 2048):
        rows.append(f"Dense {n},d{n},{0.5 + n * n / 4e5},yes")
        layer = record("dense", in_h=1, in_w=1, in_c=n, out_h=1, out_w=1, out_c=n, kernel_h=1,
                       kernel_w=1)  # fmt: skip
        records.append(
            f'"d{n}": {{"input": [1, 1, {n}], "output_bytes": {n}, "layers": [{layer}]}}'
        )
    table.write_text("\n".join(rows))
    networks.write_text("{" + ",".join(records).replace("'", '"') + "}")
    found = fit_edge_tpu.read_tables(table, networks)
    assert [network.key for network in found] == ["d8", "d64", "d256", "d512", "d1024", "d2048"]
    assert found[1].seconds == pytest.approx((0.5 + 64 * 64 / 4e5) / 1e3)
    assert fit_edge_tpu.multiply_adds(found[1]) == 64 * 64
    assert fit_edge_tpu.parameters(found[1]) == 64 * 65
    for bad, message in [
        ("network,key,usb3_latency_ms\nA,d8,1", "has no column trusted"),
        (f"{rows[0]}\nA,d9,1,yes", "has no network 'd9'"),
        (f"{rows[0]}\nA,d8,1,maybe", "trusted is yes or no, not 'maybe'"),
        (f"{rows[0]}\nA,d8,0,yes", "above 0 ms, not 0"),
        (f"{rows[0]}\nA,d8,1,yes", "4 constants need more than 1 trusted rows"),
    ]:
        table.write_text(bad)
        with pytest.raises(SystemExit):
            fit_edge_tpu.main(["fit", f"--table={table}", f"--networks={networks}"])
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        fit_edge_tpu.main(["fit", f"--table={table}"])
    assert "go together" in capsys.readouterr().err


def test_ranks_and_their_correlation():
    def spearman(a, b):
        return fit_edge_tpu.spearman(np.asarray(a), np.asarray(b))

    assert spearman([1.0, 2.0, 30.0], [0.1, 0.5, 0.6]) == pytest.approx(1.0)
    assert spearman([3.0, 2.0, 1.0], [1.0, 2.0, 3.0]) == pytest.approx(-1.0)
    # ranks 1.5 1.5 3 against 1 2 3
    assert spearman([1.0, 1.0, 2.0], [1.0, 2.0, 3.0]) == pytest.approx(3**0.5 / 2)


def test_accuracy_by_hand():
    found = fit_edge_tpu.accuracy(np.asarray([1.0, 2.0, 4.0]), np.asarray([1.5, 1.8, 4.0]))
    assert found == pytest.approx(
        {"rows": 3, "median_error": 0.1, "mean_error": 0.2, "largest_error": 0.5, "spearman": 1.0}
    )


def test_the_report_that_is_kept_is_the_one_that_is_made(report):
    text = (ROOT / "results" / "edge_tpu.json").read_text(encoding="utf-8")
    kept = json.loads(text)
    assert kept["command"] == "python -m experiments.fit_edge_tpu --json=results/edge_tpu.json"
    assert set(kept) == {"command", "table", "alternatives", *report}
    for name, rows in report["accuracy"].items():
        for which, ways in rows.items():
            for way, figures in ways.items():
                assert kept["accuracy"][name][which][way] == pytest.approx(figures, rel=1e-4)
