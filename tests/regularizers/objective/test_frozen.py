"""What an optimizer does not train is not pulled; what it trains now and then, now and then."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import regularizers as reg
from regularizers.errors import InputError

X = jnp.ones((2, 6))
LABELS = {"a": "frozen", "b": "trained", "z": "trained"}


def chain(v, x):
    return jnp.tanh(jnp.tanh(x @ v["a"]) @ v["b"]) @ v["z"]


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    shapes = {"a": (6, 7), "b": (7, 5), "z": (5, 3)}
    return {name: jax.device_put(rng.normal(size=s).astype("f")) for name, s in shapes.items()}


@pytest.fixture(scope="module")
def regularizer(params):
    graph = reg.trace_channels(chain, params, X)
    return reg.NetworkRegularizer(graph, reg.flops(graph), threshold=0.0)


def run(tx, params, steps=6):
    """Steps along gradients that depend on the step."""
    state, update = tx.init(params), jax.jit(tx.update)
    for i in range(steps):
        slopes = jax.tree.map(lambda p, i=i: jnp.sin(p + i), params)
        updates, state = update(slopes, state, params)
        params = optax.apply_updates(params, updates)
    return params


def part(optimizer):
    return optax.partition({"frozen": optax.set_to_zero(), "trained": optimizer}, LABELS)


MASK = {"a": True, "b": False, "z": False}
ADAM = optax.adam(0.01)
FROZEN = {
    "set to zero": lambda prox: prox(part(ADAM)),
    "masked": lambda prox: part(prox(ADAM)),
    "at the end": lambda prox: prox(
        optax.chain(optax.adamw(0.01), optax.masked(optax.set_to_zero(), MASK))
    ),
    "then clipped": lambda prox: prox(optax.chain(part(ADAM), optax.clip_by_global_norm(1.0))),
    "accumulated": lambda prox: prox(optax.MultiSteps(part(ADAM), 2)),
    "checked": lambda prox: prox(optax.apply_if_finite(part(ADAM), 2)),
}


@pytest.mark.parametrize("how", FROZEN)
@pytest.mark.promotes
def test_frozen_layers_are_not_pulled_and_others_are(how, params, regularizer):
    tx = FROZEN[how](lambda inner: reg.proximal(inner, regularizer, 0.1))
    after = run(tx, params, 4)
    np.testing.assert_array_equal(after["a"], params["a"])
    before = run(FROZEN[how](lambda inner: reg.proximal(inner, regularizer, 0.0)), params, 4)
    weaker = regularizer.strengths(before)["b"] - regularizer.strengths(after)["b"]
    assert (weaker > 0.01).all()


@pytest.mark.parametrize("rate", [0.0, optax.linear_schedule(0.0, 0.01, 50)], ids=["0", "warmup"])
@pytest.mark.promotes
def test_a_learning_rate_of_zero_freezes_nothing(rate, params, regularizer):
    after = run(reg.proximal(optax.sgd(rate), regularizer, 0.1), params, 1)
    for name in ("a", "b"):
        assert (regularizer.strengths(after)[name] < regularizer.strengths(params)[name]).all()


def test_where_everything_is_frozen_there_is_an_error(params, regularizer):
    tx = reg.proximal(optax.set_to_zero(), regularizer)
    with pytest.raises(InputError, match=r"every channel group.*'a'.*prunable="):
        tx.update(params, tx.init(params), params)


@pytest.mark.parametrize("strength", [0.1, lambda step: 0.05 * (1 + step)], ids=["same", "rising"])
@pytest.mark.promotes
def test_steps_that_accumulate_do_not_pull(strength, params, regularizer):
    inside = reg.proximal(optax.MultiSteps(ADAM, 3), regularizer, strength)
    around = optax.MultiSteps(reg.proximal(ADAM, regularizer, strength), 3)
    ours, theirs = run(inside, params, 7), run(around, params, 7)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours, theirs)
    assert (regularizer.strengths(ours)["b"] < regularizer.strengths(params)["b"]).all()


@pytest.mark.promotes
def test_several_accumulations_are_refused(params, regularizer):
    several = optax.chain(
        *[optax.MultiSteps(optax.sgd(0.1), k).gradient_transformation() for k in (2, 3)]
    )
    tx = reg.proximal(several, regularizer)
    with pytest.raises(InputError, match=r"wraps 2 optax\.MultiSteps.*around"):
        tx.update(params, tx.init(params), params)


@pytest.mark.promotes
def test_integer_leaves_stay_as_they_are(params):
    params = {**params, "order": jnp.asarray([2, 0, 1])}

    def fn(v, x):
        return chain(v, x)[:, v["order"]]

    graph = reg.trace_channels(fn, params, X)
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph), threshold=0.0)
    tx = reg.proximal(optax.adam(0.01), regularizer, 0.1)
    slopes = jax.grad(lambda v: jnp.sum(fn(v, X) ** 2), allow_int=True)(params)
    assert slopes["order"].dtype == jax.dtypes.float0
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(slopes, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(params["order"], [2, 0, 1])
    assert params["order"].dtype == jnp.int32


@pytest.mark.parametrize("collections", [False, True])
@pytest.mark.promotes
def test_an_average_is_masked_as_the_weights_are(collections, params, regularizer):
    if collections:  # then `params` alone will do
        fn = lambda v, x: chain(v["params"], x) + v["more"]["shift"]  # noqa: E731
        graph = reg.trace_channels(fn, {"params": params, "more": {"shift": jnp.ones((1, 3))}}, X)
        regularizer = reg.NetworkRegularizer(graph, reg.flops(graph), threshold=0.0)
    dead = {"b": np.array([True, False, True, True, False])}
    weights = regularizer.graph.mask(params, dead)
    average = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, params, weights)
    masked = regularizer.mask(average, weights)
    np.testing.assert_array_equal(regularizer.strengths(masked)["b"] > 0.0, dead["b"])
    np.testing.assert_array_equal(masked["a"], average["a"])


def test_the_state_of_another_network_is_refused(params, regularizer):
    small = {"a": params["a"][:, :3], "b": params["b"][:3], "z": params["z"]}
    graph = reg.trace_channels(chain, small, X)
    other = reg.NetworkRegularizer(graph, reg.flops(graph), threshold=0.0)
    state = reg.proximal(optax.sgd(0.1), regularizer).init(params)
    with pytest.raises(InputError, match=r"group 'a' has width 7 in it, and 3 here.*take\(state\)"):
        reg.proximal(optax.sgd(0.1), other).update(small, state, small)


def test_swapped_arguments_are_told_apart(regularizer):
    with pytest.raises(TypeError, match="is it swapped with regularizer"):
        reg.proximal(regularizer, optax.sgd(0.1))
