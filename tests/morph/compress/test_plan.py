"""Networks in fixed point: precisions are chosen layer by layer, from data."""

import itertools
import json
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fixed_point_case import with_tiny_channel

import morph
import regularizers as reg
from experiments.networks.mlp import MLP
from morph.compress.fixed_point import (
    FixedPoint,
    Precision,
    best_precision,
    equalized,
    rounding_errors,
)
from morph.compress.plan import FixedPointPlan, fixed_point_plan
from morph.compress.training import accuracy_of, train
from morph.network import linen_network
from morph.training.data import Batch


@pytest.mark.parametrize("word", [1, 0, -8, 17, 32])
def test_no_such_word_length(word, case):
    _, variables, x, graph = case
    for make in (
        lambda: Precision(word_length=word, fractional_length=0),
        lambda: best_precision(np.ones(3), word),
        lambda: fixed_point_plan(graph, variables, (x,), word_length=word),
    ):
        with pytest.raises(ValueError, match=rf"2 to 16 bits with the sign, found {word}"):
            make()
    with pytest.raises(ValueError, match="-126 to 126, found 200"):
        Precision(word_length=8, fractional_length=200)


def by_hand(variables, x, plan):
    """The network in numpy's float64 (the sums of integers are exact there), layer by layer."""

    def fixed(value, own):
        half = 1 << (own.word_length - 1)
        codes = np.rint(np.asarray(value, np.float64) * 2.0**own.fractional_length)
        return np.clip(codes, -half, half - 1) * own.step

    def weight(path):
        return fixed(dict(zip(*paths_of(variables), strict=True))[path], plan.weights[path])

    def convolve(x, w, stride):
        n, h, w_, c = x.shape
        groups = c // w.shape[2]
        out = [-(-h // stride), -(-w_ // stride)]
        pads = [max((o - 1) * stride + 3 - m, 0) for o, m in zip(out, (h, w_), strict=True)]
        x = np.pad(x, [(0, 0), *((q // 2, q - q // 2) for q in pads), (0, 0)])
        y = np.zeros((n, *out, w.shape[3]))
        each = w.shape[3] // groups
        for r, s, o in itertools.product(range(out[0]), range(out[1]), range(w.shape[3])):
            group = slice(o // each * w.shape[2], (o // each + 1) * w.shape[2])
            window = x[:, r * stride : r * stride + 3, s * stride : s * stride + 3, group]
            y[:, r, s, o] = (window * w[..., o]).sum((1, 2, 3))
        return y

    stem, depthwise, logits = "params/stem", "params/depthwise", "params/logits"
    x = fixed(x, plan.data[f"{stem}/kernel"])
    x = np.maximum(convolve(x, weight(f"{stem}/kernel"), 2) + weight(f"{stem}/bias"), 0)
    y = fixed(x, plan.data[f"{depthwise}/kernel"])
    y = convolve(y, weight(f"{depthwise}/kernel"), 1)
    x = x + (y / np.sqrt(np.float32(1) + np.float32(1e-5)))
    x = fixed(x.reshape(len(x), -1).astype(np.float32), plan.data[f"{logits}/kernel"])
    return x @ weight(f"{logits}/kernel") + weight(f"{logits}/bias")


def paths_of(variables):
    flat = jax.tree_util.tree_leaves_with_path(variables)
    return ["/".join(k.key for k in path) for path, _ in flat], [leaf for _, leaf in flat]


@pytest.mark.parametrize("word", [4, 8, 16])
def test_a_network_computes_in_fixed_point(word, case):
    apply, variables, x, graph = case
    plan = fixed_point_plan(graph, variables, (x,), word_length=word)
    layers = {f"params/{name}/kernel" for name in ("stem", "depthwise", "logits")}
    assert set(plan.data) == layers
    assert set(plan.weights) == layers | {"params/stem/bias", "params/logits/bias"}
    found = jax.jit(plan.simulated(apply))(variables, x)
    np.testing.assert_allclose(found, by_hand(variables, x, plan), rtol=0, atol=2e-6)
    np.testing.assert_array_equal(jax.jit(plan.simulated(apply))(plan.apply(variables), x), found)
    lost = np.abs(found - apply(variables, x)).max()
    assert lost < {4: 1.5, 8: 0.1, 16: 5e-4}[word]


def test_data_are_chosen_one_layer_after_the_other(case):
    """The precision of each is the best by brute force, with all earlier ones fixed."""
    apply, variables, x, graph = case
    plan = fixed_point_plan(graph, variables, (x,), word_length=5)
    capture = {"capture_intermediates": True, "mutable": ["intermediates"]}

    def entering(fn, variables):
        _, state = fn(variables, x, **capture)
        inner = state["intermediates"]
        stem, norm = (inner[name]["__call__"][0] for name in ("stem", "norm"))
        return {"stem": x, "depthwise": nn.relu(stem), "logits": nn.relu(stem) + norm}

    plain = entering(apply, variables)
    for name in ("stem", "depthwise", "logits"):
        path = f"params/{name}/kernel"
        now = entering(plan.simulated(apply, exact=False), variables)[name]
        lengths = range(-8, 12)
        errors = rounding_errors(now, 5, lengths, plain[name])
        assert plan.data[path].fractional_length == lengths[int(errors.argmin())]
        relative = errors.min() / np.abs(np.asarray(plain[name], np.float64)).sum()
        assert plan.errors[f"data {path}"] == pytest.approx(relative)


def test_equalized_outputs_are_the_same_function(case):
    """A depthwise kernel of which one channel is tiny: in front of a norm it need not stay so."""
    apply, variables, x, _ = case
    tiny = with_tiny_channel(variables)
    graph = reg.trace_channels(apply, tiny, x)
    equal = equalized(graph, tiny)
    np.testing.assert_allclose(apply(equal, x), apply(tiny, x), rtol=1e-4, atol=1e-5)
    sizes = jnp.abs(equal["params"]["depthwise"]["kernel"]).max((0, 1, 2))
    np.testing.assert_allclose(sizes, sizes.max() * np.float32([1, 1, 0, 1, 1, 1]), rtol=1e-6)
    np.testing.assert_array_equal(
        equal["params"]["stem"]["kernel"], tiny["params"]["stem"]["kernel"]
    )
    lost = {}
    for name, own in (("plain", tiny), ("equal", equal)):
        plan = fixed_point_plan(graph, own, (x,))
        lost[name] = float(jnp.abs(plan.simulated(apply)(own, x) - apply(tiny, x)).mean())
    assert lost["equal"] < 0.2 * lost["plain"]


def test_static_precision_is_one_for_all_and_no_better(case):
    apply, variables, x, graph = case
    variables = jax.tree.map(lambda leaf: leaf, variables)
    variables["params"]["logits"]["kernel"] = variables["params"]["logits"]["kernel"] * 37
    outputs = apply(variables, x)
    lost = {}
    for dynamic in (True, False):
        plan = fixed_point_plan(graph, variables, (x,), word_length=6, dynamic=dynamic)
        for own in (plan.weights, plan.data):
            assert (len({one.fractional_length for one in own.values()}) == 1) != dynamic
        lost[dynamic] = float(jnp.abs(plan.simulated(apply)(variables, x) - outputs).sum())
    assert lost[True] < 0.5 * lost[False]


def test_patterns_say_the_word_lengths(case):
    apply, variables, x, graph = case
    words = {"stem": 12, "logits": 6}
    plan = fixed_point_plan(graph, variables, (x,), word_length=words, data_word_length=9)
    found = {path.split("/")[1]: own.word_length for path, own in plan.weights.items()}
    assert found == words
    assert {own.word_length for own in plan.data.values()} == {9}
    assert list(plan.left) == ["params/depthwise/kernel"]
    only = fixed_point_plan(graph, variables, (x,), activations=False)
    assert not only.data
    np.testing.assert_array_equal(
        only.simulated(apply)(variables, x), morph.tensorized(apply)(only.apply(variables), x)
    )
    with pytest.raises(ValueError, match="word_length='steam' matches no layer"):
        fixed_point_plan(graph, variables, (x,), word_length={"steam": 8})


def test_a_plan_is_saved_as_json(case):
    _, variables, x, graph = case
    plan = fixed_point_plan(graph, variables, (x,), word_length={"stem": 16, "*": 8})
    assert FixedPointPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert "depthwise" in str(plan)


def test_a_kernel_used_twice_and_kernels_of_a_loop():
    class Loop(nn.Module):
        @nn.compact
        def __call__(self, x):
            shared = nn.Dense(5, name="shared")
            x = shared(nn.relu(3 * shared(x)))
            scanned = nn.scan(
                lambda layer, x, _: (layer(x), None),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=2,
            )
            return scanned(nn.Dense(5, name="stack"), x, None)[0]

    x = jax.random.normal(jax.random.key(0), (4, 5))
    variables = jax.jit(Loop().init)(jax.random.key(1), x)
    graph = reg.trace_channels(Loop().apply, variables, x)
    plan = fixed_point_plan(graph, variables, (x,))
    shared = "params/shared/kernel"
    assert set(plan.data) == {shared, f"{shared} (2)"}
    assert plan.data[shared] != plan.data[f"{shared} (2)"]
    assert plan.left == {
        "data params/stack/kernel": "inside of a loop or branch: no data were seen"
    }
    found = plan.simulated(Loop().apply)(variables, x)
    np.testing.assert_allclose(found, Loop().apply(variables, x), atol=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, x: (v, x[:0]), "calibration set is empty"),
        (lambda v, x: (v, x[:2]), "the function was traced with"),
        (lambda v, x: (v, x.at[0, 0, 0, 0].set(jnp.nan)), "the calibration set holds values"),
        (lambda v, x: (jax.tree.map(lambda a: a * jnp.nan, v), x), "params/stem/kernel holds"),
    ],
)
def test_bad_calibration(change, message, case):
    _, variables, x, graph = case
    variables, x = change(variables, x)
    with pytest.raises(ValueError, match=message):
        fixed_point_plan(graph, variables, (x,))


def test_numbers_that_overflow_on_the_way_are_told(case):
    _, variables, x, graph = case
    huge = jax.tree.map(lambda leaf: leaf, variables)
    huge["params"]["stem"]["kernel"] = huge["params"]["stem"]["kernel"] * 1e38
    with pytest.raises(ValueError, match="data of params/depthwise/kernel are NaN or infinite"):
        fixed_point_plan(graph, huge, (1e3 * x,))


def test_a_layer_of_zeros_is_no_error(case):
    apply, variables, x, graph = case
    dead = jax.tree.map(lambda leaf: leaf, variables)
    dead["params"]["stem"] = jax.tree.map(jnp.zeros_like, dead["params"]["stem"])
    for dynamic in (True, False):
        plan = fixed_point_plan(graph, dead, (x,), dynamic=dynamic)
        np.testing.assert_allclose(plan.simulated(apply)(dead, x), apply(dead, x), atol=1e-6)


def test_another_networks_variables_are_refused(case):
    _, variables, x, graph = case
    plan = fixed_point_plan(graph, variables, (x,))
    other = {"params": {"stem": variables["params"]["stem"]}}
    with pytest.raises(ValueError, match="have no 'params/depthwise/kernel', which is planned"):
        plan.apply(other)


@pytest.mark.promotes
def test_training_through_rounding_wins_back_what_it_lost():
    """Quantization-aware: weights of 3 bits and data of 4, before and after."""
    generator = np.random.default_rng(0)
    y = generator.integers(4, size=256)
    x = generator.normal(size=(4, 3, 3, 1))[y] + 0.6 * generator.normal(size=(256, 3, 3, 1))
    data = Batch(x.astype(np.float32), y.astype(np.int32))
    network = linen_network(MLP(num_classes=4, widths=(11, 7)))
    tx = optax.adam(1e-2)
    start = jax.jit(network.init)(jax.random.key(0), data.x[:1])
    variables, _ = train(network, start, data, tx, steps=50, batch_size=64)
    graph = reg.trace_channels(network.predict, variables, data.x)
    plan = fixed_point_plan(graph, variables, (data.x,), word_length=2, data_word_length=3)
    rounding = replace(
        network,
        predict=plan.simulated(network.predict, exact=False),
        forward=plan.simulated(network.forward, exact=False),
    )
    values = plan.apply(variables)
    after, _ = train(rounding, values, data, tx, steps=100, batch_size=64)
    integers = replace(network, predict=plan.simulated(network.predict))
    before, now = (accuracy_of(integers, v, data) for v in (values, after))
    assert now > before + 0.02
    assert isinstance(after["params"]["Dense_0"]["kernel"], FixedPoint)
    assert accuracy_of(rounding, after, data) == now
