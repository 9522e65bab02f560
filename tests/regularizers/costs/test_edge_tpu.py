import dataclasses
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.published import read_published
from regularizers.costs import edge_tpu
from regularizers.costs.edge_tpu import (
    KINDS,
    EdgeTPU,
    Layers,
    seconds,
    steps,
    uncached_bytes,
)
from regularizers.costs.form import EXACT, SMOOTH

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
PUBLISHED = read_published()
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
