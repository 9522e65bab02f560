"""Stochastic gates: their law, where they act, and that they find what is useless."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import morph
import regularizers as reg
from morph.training.gated import folded, gated_network, with_gates
from regularizers.objective import gates

M, N, K = 5, 11, 3  # inputs, hidden, outputs
USELESS = np.isin(np.arange(N), [0, 3, 4, 8])


@pytest.mark.parametrize(("logit", "mean"), [(5.5, 0.996), (0.5, 0.6), (-5.5, 0.004)])
def test_the_mean_of_cold_gates_is_the_probability(logit, mean):
    sampled = gates.sample(jax.random.key(0), jnp.full(1000, logit), 0.01)
    assert abs(float(sampled.mean()) - mean) < 0.07
    assert abs(float(gates.probability(jnp.float32(logit))) - mean) < 0.03


def test_a_gate_is_open_as_often_at_any_temperature():
    logits = jnp.linspace(-2.0, 2.0, 5)
    keys = jax.random.split(jax.random.key(1), 4000)

    def share(temperature):
        return jax.vmap(lambda key: gates.sample(key, logits, temperature) > 0.5)(keys).mean(0)

    hot, cold = share(1.0), share(0.1)
    np.testing.assert_array_equal(hot, cold)
    np.testing.assert_allclose(hot, jax.nn.sigmoid(logits), atol=0.03)


def test_straight_through_is_hard_forward_and_soft_backward():
    logits, key = jnp.linspace(-3.0, 3.0, 7), jax.random.key(2)

    def value(logits, straight):
        return gates.sample(key, logits, 0.7, straight_through=straight)

    hard, soft = value(logits, True), value(logits, False)
    np.testing.assert_allclose(hard, soft > 0.5, atol=1e-6)
    slope = jax.vmap(jax.grad(lambda one: value(one, True).sum()))(logits[:, None])
    np.testing.assert_allclose(
        slope, jax.vmap(jax.grad(lambda one: value(one, False).sum()))(logits[:, None]), rtol=1e-6
    )


def test_a_shut_gate_is_zero_and_gets_no_gradient():
    def value(logits):
        return gates.sample(jax.random.key(3), logits, 0.5).sum()

    logits = jnp.asarray([gates.CLOSED, 1.0])
    assert gates.sample(jax.random.key(3), logits)[0] == 0.0
    slope = jax.grad(value)(logits)
    assert slope[0] == 0.0
    assert slope[1] > 0.0


def test_logits_and_probabilities_are_inverse():
    logits = jnp.asarray([gates.CLOSED, -9.0, -1.0, 0.0, 2.0, 9.0])
    np.testing.assert_allclose(gates.logits_of(gates.probability(logits)), logits, rtol=1e-3)
    assert gates.probability(logits)[0] == 0.0


def test_the_temperature_falls_and_stays():
    temperature = gates.annealed(1.0, 0.01, 10)
    np.testing.assert_allclose([temperature(n) for n in (0, 5, 10, 99)], [1.0, 0.1, 0.01, 0.01])


def test_a_gate_acts_on_the_last_producers_that_suffice(networks):
    def short(name):
        found = gates.silencers(networks(name).graph)
        return {g: [p.removeprefix("params/") for p in paths] for g, paths in found.items()}

    residual = short("residual")  # a norm follows the kernel: in train mode that cannot be scaled
    assert residual["Conv_1"] == ["BatchNorm_1/scale", "BatchNorm_1/bias"]
    # Both addends of a stream, one of which has no norm.
    norm = ["BatchNorm_4/scale", "BatchNorm_4/bias"]
    assert residual["Conv_4"] == [*norm, "Conv_5/kernel", "Conv_5/bias"]
    assert short("towers")["Conv_1"] == ["Conv_1/kernel", "Conv_1/bias"]
    # Not the pointwise convolution too, whose channels the depthwise one passes on.
    assert short("grouped")["Conv_1"] == ["Conv_2/kernel", "Conv_2/bias"]
    heads = short("nnx_attention")["attention/query[1]"]
    assert heads == ["attention/value/kernel", "attention/value/bias"]


@pytest.mark.parametrize("name", ["residual", "grouped", "nnx_attention"])
def test_shut_gates_are_a_mask(networks, name, rng):
    """Zero where it counts is as good as zero everywhere."""
    network = networks(name)
    graph = network.graph
    alive = {name: np.asarray(rng.random(w) < 0.6) for name, w in graph.widths.items()}
    logits = {name: jnp.where(alive[name], 1.0, -1.0) for name in gates.init(graph)}
    assert set(logits) == {name for name, group in graph.groups.items() if group.exact}
    variables = {**network.variables, "params": {**network.variables["params"], "gates": logits}}
    out = jax.jit(gates.gated(network.fn, graph))(variables, *network.inputs)
    mask = graph.mask(network.variables, {name: alive[name] for name in logits})
    expected = jax.jit(network.fn)(mask, *network.inputs)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, gates.fold(graph, variables), mask)


def forward(v, x):
    """A perceptron without batch norm, of whose units some go nowhere."""
    p = v["params"]
    return jax.nn.relu(x @ p["a"] + p["bias"][None]) * v["used"]["used"][None] @ p["b"]


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(64, M)), jnp.float32)
    params = {
        "a": jnp.asarray(rng.normal(size=(M, N)), jnp.float32),
        "bias": jnp.ones(N),
        "b": jnp.asarray(rng.normal(size=(N, K)), jnp.float32),
    }
    variables = {"params": params, "used": {"used": jnp.where(USELESS, 0.0, 1.0)}}
    return x, forward(variables, x), variables, reg.trace_channels(forward, variables, x)


@pytest.mark.parametrize(
    ("mode", "form", "steps"),
    [("annealed", "loss", 300), ("straight_through", "loss", 300), ("annealed", "proximal", 2000)],
)
@pytest.mark.promotes
def test_useless_channels_are_found_without_batch_norm(problem, mode, form, steps):
    x, y, variables, graph = problem
    plain = morph.Network(
        init=lambda key, x: variables,
        predict=forward,
        forward=lambda v, x, key: (forward(v, x), {}),
    )
    network = gated_network(plain, graph, steps=steps, mode=mode)
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph), "gates", threshold=0.0)
    tx = optax.adam(0.03)
    if form == "proximal":
        tx = reg.proximal(tx, regularizer, strength=0.007)

    def step(carry, key):
        variables, state = carry

        def loss(params):
            whole = {**variables, "params": params}
            out, updates = network.forward(whole, x, key)
            term = regularizer(params) if form == "loss" else 0.0
            return jnp.square(out - y).mean() + 0.2 * term, updates

        slope, updates = jax.grad(loss, has_aux=True)(variables["params"])
        change, state = tx.update(slope, state, variables["params"])
        params = optax.apply_updates(variables["params"], change)
        return ({**variables, **updates, "params": params}, state), None

    start = with_gates(variables, graph)
    keys = jax.random.split(jax.random.key(0), steps)
    (trained, _), _ = jax.lax.scan(step, (start, tx.init(start["params"])), keys)
    assert trained["gate_clock"]["steps"] == steps
    alive = regularizer.alive(trained)
    np.testing.assert_array_equal(alive["a"], ~USELESS)
    if form == "proximal":  # for good
        np.testing.assert_array_equal(
            trained["params"]["gates"]["a"] == gates.CLOSED, np.asarray(USELESS)
        )
    dense, expected = folded(graph, trained), network.predict(trained, x)
    assert jnp.square(expected - y).mean() < 0.05 * jnp.square(y).mean()
    arch = morph.shrink(graph, alive)
    assert arch.widths == {"a": N - USELESS.sum()}
    small = morph.compact(forward, arch)(arch.take(dense), x)
    np.testing.assert_allclose(forward(dense, x), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(small, expected, rtol=1e-6, atol=1e-6)


def test_a_proximal_step_on_probabilities(problem):
    _, _, variables, graph = problem
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph), "gates", threshold=0.0)
    logits = jnp.asarray([gates.CLOSED, -2.0, 0.5, 1.0, 3.0, 20.0, *[0.0] * (N - 6)])
    params = {**variables["params"], "gates": {"a": logits}}
    p = regularizer.strengths(params)["a"]
    assert regularizer.alive(params)["a"].tolist() == (logits > 0).tolist()
    pull = 0.2 * regularizer.marginal_costs({"a": p})["a"]
    still = np.asarray([False] * 4 + [True] * 2 + [False] * (N - 6))
    held = np.arange(N) == N - 1
    after = regularizer.shrink_step(params, 0.2, protected={"a": still}, held={"a": held})
    expected = np.where(held, 0.0, np.maximum(p - np.where(still, 0.0, pull), 0.0))
    np.testing.assert_allclose(gates.probability(after["gates"]["a"]), expected, atol=1e-5)
    strong = regularizer.shrink_step(params, 1e3, protected={"a": still})["gates"]["a"]
    np.testing.assert_array_equal(gates.is_open(strong), still)
    assert set(np.asarray(strong)[~still]) == {gates.CLOSED}
    same = regularizer.shrink_step(params, 0.0)
    jax.tree.map(np.testing.assert_array_equal, same, params)


def test_what_cannot_be_gated_is_said(problem):
    _, _, variables, graph = problem
    with pytest.raises(ValueError, match=r"hold no gates: put gates.init\(graph\) into"):
        gates.gated(forward, graph)(variables, jnp.ones((1, M)))
    wrong = {**variables, "params": {**variables["params"], "gates": {"a": jnp.ones(4)}}}
    with pytest.raises(ValueError, match=r"'a' has \[4\] logits, and width 11 there"):
        gates.gated(forward, graph)(wrong, jnp.ones((1, M)))
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph), "gates")
    with pytest.raises(ValueError, match=r"'params/gates/a' is missing; gates.init\(graph\) makes"):
        regularizer(variables)
    with pytest.raises(ValueError, match="unknown gate mode 'cold'; known are 'annealed'"):
        gated_network(None, graph, steps=1, mode="cold")

    def normed(v, x):  # a norm without scale is summed up: nothing trained can silence it
        h = (x @ v["params"]["a"] - v["stats"]["mean"][None]) * v["stats"]["by"][None]
        return jax.nn.relu(h).sum(1)

    v = {
        "params": {"a": variables["params"]["a"]},
        "stats": {"mean": jnp.ones(N), "by": jnp.ones(N)},
    }
    fixed = reg.trace_channels(normed, v, jnp.ones((1, M)))
    assert gates.init(fixed) == {}
    with pytest.raises(ValueError, match="group 'a' cannot be gated: no trained variable makes"):
        gates.init(fixed, ["a"])
    penalty = reg.NetworkRegularizer(fixed, reg.flops(fixed), "gates").groups[0].penalty
    assert penalty == "group_lasso"
