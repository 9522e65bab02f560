"""A penalty owns its measure and its pull: a new one is a function and a row of the table."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import regularizers as reg
from regularizers.objective import gates
from regularizers.objective.penalties import PENALTIES
from regularizers.objective.penalty import GroupPenalty, Pull, paths_of, sources_of

M, N, K = 5, 11, 3  # inputs, hidden, outputs
USEFUL = np.isin(np.arange(N), [1, 2, 5, 6, 7, 9, 10])


def mean_magnitude(leaf, axis, total):
    return total(jnp.abs(leaf), axis) * leaf.shape[axis] / leaf.size


def l1_norm(graph, group, l1_share):
    """Mean |w| of every trained slice; of a normal draw it is sqrt(2 / pi) of the deviation."""
    del l1_share
    sources = sources_of(graph, group, mean_magnitude, fresh=lambda n: math.sqrt(2 / math.pi / n))
    return GroupPenalty(
        group=group.name,
        width=group.width,
        penalty="l1_norm",
        measured=sources,
        pull=Pull(scaled=paths_of(sources)),
    )


def taylor_of(gradient):
    """A first-order Taylor score (Molchanov et al. 2017): the sum of |w dL/dw| over a slice."""

    def taylor(graph, group, l1_share):
        del l1_share

        def norm(leaf, axis, total):
            return total(jnp.abs(leaf * gradient), axis)

        sources = sources_of(graph, group, norm)
        return GroupPenalty(
            group=group.name,
            width=group.width,
            penalty="taylor",
            measured=sources,
            pull=Pull(scaled=paths_of(sources)),
        )

    return taylor


def forward(variables, x):
    return jax.nn.relu(x @ variables["params"]["a"]) @ variables["params"]["b"]


@pytest.fixture(scope="module")
def variables():
    keys = jax.random.split(jax.random.key(3), 2)
    shapes = {"a": (M, N), "b": (N, K)}
    params = {
        name: jax.random.normal(key, shape) / math.sqrt(shape[0])
        for (name, shape), key in zip(shapes.items(), keys, strict=True)
    }
    return {"params": params}


@pytest.fixture(scope="module")
def graph(variables):
    return reg.trace_channels(forward, variables, jnp.ones((1, M)))


def regularizer_of(graph, penalty, **options):
    return reg.NetworkRegularizer(graph, reg.flops(graph), penalty, threshold=0.0, **options)


@pytest.fixture
def rows(monkeypatch, variables):
    """The table with two new rows."""
    monkeypatch.setitem(PENALTIES, "l1_norm", l1_norm)
    monkeypatch.setitem(PENALTIES, "taylor", taylor_of(jnp.cos(variables["params"]["a"])))


def test_a_new_measure_is_measured_in_its_own_units(rows, graph, variables):
    a = np.asarray(variables["params"]["a"])
    by_hand = np.abs(a).mean(0)
    found = regularizer_of(graph, "l1_norm").strengths(variables)["a"]
    np.testing.assert_allclose(found, by_hand, rtol=1e-6)
    fresh = regularizer_of(graph, "l1_norm", relative_to="fresh").strengths(variables)["a"]
    np.testing.assert_allclose(fresh, by_hand * math.sqrt(M * math.pi / 2), rtol=1e-6)
    found = regularizer_of(graph, "taylor").strengths(variables)["a"]
    np.testing.assert_allclose(found, np.abs(a * np.cos(a)).sum(0), rtol=1e-5)


def test_a_new_measure_trains(rows, graph, variables):
    """Against what a network of fewer channels says, those that are not needed die for good."""
    params = variables["params"]
    x = jax.random.normal(jax.random.key(5), (64, M))
    y = forward({"params": {**params, "b": jnp.where(USEFUL[:, None], params["b"], 0.0)}}, x)
    regularizer = regularizer_of(graph, "l1_norm")
    tx = reg.proximal(optax.sgd(0.05), regularizer, strength=6e-3)

    def step(carry, _):
        params, state = carry
        slope = jax.grad(lambda p: jnp.square(forward({"params": p}, x) - y).mean())(params)
        change, state = tx.update(slope, state, params)
        return (optax.apply_updates(params, change), state), None

    (trained, _), _ = jax.lax.scan(step, (params, tx.init(params)), None, 1500)
    alive = np.asarray(regularizer.alive(trained)["a"])
    assert 0 < alive.sum() <= USEFUL.sum()
    np.testing.assert_array_equal(trained["a"][:, ~alive], 0.0)
    assert jnp.square(forward({"params": trained}, x) - y).mean() < 0.1 * jnp.square(y).mean()


@pytest.mark.parametrize("penalty", [*PENALTIES, "l1_norm", "taylor"])
def test_what_is_pulled_is_what_is_measured(rows, graph, variables, penalty):
    """Of every row: a step takes as much as it says, and dead channels lie where they rest."""
    params = {**variables["params"], "gates": gates.init(graph)}
    regularizer = regularizer_of(graph, penalty)
    (g,) = regularizer.groups
    before = regularizer.strengths(params)["a"]
    step = 0.5 * float(before.max() / regularizer.marginal_costs({"a": before})["a"])
    held = np.arange(N) == 0
    after = regularizer.shrink_step(params, step, held={"a": held})
    expected = np.where(held, 0.0, np.maximum(before - 0.5 * before.max(), 0.0))
    np.testing.assert_allclose(regularizer.strengths(after)["a"], expected, rtol=1e-4, atol=1e-6)
    resting = regularizer.resting(params)
    moved = {
        name
        for name, leaf in {"a": after["a"], "gates": after["gates"]["a"]}.items()
        if np.all(leaf[..., held] == jax.tree.leaves(resting[name])[0])
    }
    assert moved == ({"a"} if g.pull.scaled else {"gates"})
    np.testing.assert_array_equal(after["b"], params["b"])
    assert math.isnan(resting["b"])
