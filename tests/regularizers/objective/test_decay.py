"""Relative decay: what carries a channel decays, the faster the weaker the channel is."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import regularizers as reg
from regularizers.objective.decay import STEEPEST, decaying, minds_norm, speeds


class Net(nn.Module):
    """A sum of two branches, and batch norm."""

    train: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(7)(x)
        x = nn.BatchNorm(use_running_average=not self.train)(x)
        y = nn.Dense(5)(x)
        x = x + nn.Dense(7)(nn.relu(y))
        return nn.Dense(3)(nn.relu(x))


@pytest.fixture(scope="module")
def net():
    x = jnp.ones((2, 4))
    variables = Net().init(jax.random.key(0), x)
    graph = reg.trace_channels(Net().apply, variables, x)
    return variables, reg.NetworkRegularizer(graph, reg.flops(graph), threshold=0.0)


def find_decay(regularizer, variables, still=()):
    """Where the function minds the norm of nothing."""
    flat = jax.tree.map(jnp.zeros_like, variables)
    weights = regularizer.weigh(variables, variables, flat, still)
    return regularizer.find_decay(0.1, weights)


def test_speeds_are_geometric_and_alike_channels_decay_alike():
    np.testing.assert_allclose(speeds(jnp.array([1.0, 4.0, 9.0])), [1.0, 0.25, 1 / STEEPEST])
    np.testing.assert_allclose(speeds(jnp.full(4, 2.0)), 1 / STEEPEST)
    assert float(speeds(jnp.array([0.0, 1.0]))[0]) == 1.0


def test_all_that_carries_a_channel_decays_and_nothing_else(net):
    variables, regularizer = net
    after = regularizer.decayed(variables, find_decay(regularizer, variables))
    params = variables["params"]
    hidden = [params["Dense_1"]["kernel"], params["Dense_2"]["kernel"].T]
    squares = sum(jnp.square(leaf).sum(0) for leaf in hidden)
    kept = 1.0 - 0.1 * speeds(squares)
    got = after["params"]["Dense_1"]["kernel"] / params["Dense_1"]["kernel"]
    norms = got / kept[None]  # the rows carry the stream, which decays too
    np.testing.assert_allclose(norms, jnp.broadcast_to(norms[:, :1], norms.shape), rtol=1e-5)
    assert float(norms.max()) < 1.0
    for layer in ("Dense_0", "Dense_1", "Dense_2", "Dense_3", "BatchNorm_0"):
        np.testing.assert_array_equal(after["params"][layer]["bias"], params[layer]["bias"])
    assert float(after["params"]["BatchNorm_0"]["scale"].max()) < 1.0
    for before, now in zip(
        jax.tree.leaves(variables["batch_stats"]),
        jax.tree.leaves(after["batch_stats"]),
        strict=True,
    ):
        np.testing.assert_array_equal(now, before)


def test_what_the_function_minds_the_norm_of_stays(net, rng):
    variables, regularizer = net
    x, wanted = rng.normal(size=(9, 4)), rng.normal(size=(9, 3))
    x, wanted = x.astype(np.float32), wanted.astype(np.float32)

    @jax.jit
    def gradient(params):
        def loss(params):
            out, _ = Net(train=True).apply(
                {**variables, "params": params}, x, mutable=["batch_stats"]
            )
            return jnp.square(out - wanted).mean()

        return jax.grad(loss)(params)

    params = variables["params"]
    slopes = gradient(params)
    mind = {
        name: bool(minds_norm(layer["kernel"], slopes[name]["kernel"]))
        for name, layer in params.items()
        if "kernel" in layer
    }
    assert mind == {"Dense_0": False, "Dense_1": True, "Dense_2": True, "Dense_3": True}
    found = regularizer.find_decay(0.1, regularizer.weigh(params, params, slopes))
    after = regularizer.decayed(params, found)

    for name in ("Dense_1", "Dense_2", "Dense_3"):
        np.testing.assert_array_equal(after[name]["kernel"], params[name]["kernel"])
    np.testing.assert_array_equal(after["BatchNorm_0"]["scale"], params["BatchNorm_0"]["scale"])
    ratio = after["Dense_0"]["kernel"] / params["Dense_0"]["kernel"]  # before the batch norm
    assert 0.9 <= float(ratio.min()) < float(ratio.max()) < 1.0


def test_rates_go_by_multipliers_and_what_stands_still_stays(net):
    variables, regularizer = net
    graph = regularizer.graph
    own = reg.NetworkRegularizer(graph, reg.flops(graph), strengths={"Dense_1": 0.0})
    assert set(decaying(graph, ["Dense_1"])) == {"params/Dense_1/kernel", "params/Dense_2/kernel"}
    still = {"params/Dense_3/kernel"}
    left = own.decayed(variables, find_decay(own, variables, still), still)["params"]
    np.testing.assert_array_equal(
        left["Dense_3"]["kernel"], variables["params"]["Dense_3"]["kernel"]
    )
    ratio = left["Dense_1"]["kernel"] / variables["params"]["Dense_1"]["kernel"]
    np.testing.assert_allclose(ratio, jnp.broadcast_to(ratio[:, :1], ratio.shape), rtol=1e-5)


@pytest.mark.parametrize("how", [{"strength": 1e-3}, {"strength": 0.0, "decay": 1e-3}])
def test_in_turns_it_is_as_much_and_what_is_held_is_held_at_once(net, how):
    variables, regularizer = net
    params = variables["params"]
    one = reg.proximal(optax.sgd(0.0), regularizer, **how)
    turns = reg.proximal(optax.sgd(0.0), regularizer, every=3, **how)
    still = jax.tree.map(jnp.zeros_like, params)
    plain, taken = jax.jit(one.update), jax.jit(turns.update)

    def after(update, state, count):
        found = [params]
        for _ in range(count):
            moves, state = update(still, state, found[-1])
            found.append(optax.apply_updates(found[-1], moves))
        return found, state

    each, _ = after(plain, one.init(params), 3)
    in_turns, state = after(taken, turns.init(params), 3)
    for k in (1, 2):
        jax.tree.map(np.testing.assert_array_equal, in_turns[k], params)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4), in_turns[3], each[3])
    assert np.any(in_turns[3]["Dense_1"]["kernel"] != params["Dense_1"]["kernel"])

    first = {name: jnp.arange(flags.shape[0]) == 0 for name, flags in state.held.items()}
    moves, _ = taken(still, state._replace(held=first), in_turns[3])
    now = optax.apply_updates(in_turns[3], moves)["Dense_1"]["kernel"]
    assert not now[:, 0].any()
    np.testing.assert_allclose(now[:, 1:], in_turns[3]["Dense_1"]["kernel"][:, 1:], rtol=1e-6)


def test_before_a_step_that_is_given_no_saliency_is_measured(net):
    variables, regularizer = net
    params = variables["params"]
    tx = reg.proximal(optax.sgd(0.0), regularizer, 0.0, decay=1e-3, saliency_from=1)
    state = tx.init(params)
    slopes = jax.tree.map(jnp.ones_like, params)
    update = jax.jit(tx.update)
    _, state = update(slopes, state, params)
    assert not any(scores.any() for scores in state.saliency.values())
    _, state = update(slopes, state, params)
    for name, found in regularizer.slopes(params, slopes).items():
        np.testing.assert_allclose(state.saliency[name], 0.03 * found**2, rtol=1e-5)


def test_frozen_parameters_do_not_decay(net):
    variables, regularizer = net
    labels = {name: "still" if name == "Dense_3" else "moving" for name in variables["params"]}
    tx = optax.partition({"still": optax.set_to_zero(), "moving": optax.sgd(0.0)}, labels)
    tx = reg.proximal(tx, regularizer, strength=0.0, decay=lambda step: 0.1)
    params = variables["params"]
    nothing = jax.tree.map(jnp.zeros_like, params)
    updates, _ = jax.jit(tx.update)(nothing, tx.init(params), params)
    np.testing.assert_array_equal(updates["Dense_3"]["kernel"], 0.0)
    assert float(jnp.abs(updates["Dense_1"]["kernel"]).min()) > 0.0
