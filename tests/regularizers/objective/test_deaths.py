"""A strength that is given by hand and takes a whole group says so, once, in time."""

import warnings

import jax
import jax.numpy as jnp
import optax
import pytest

import regularizers as reg
from regularizers.objective import gates

M, N, H, K = 5, 7, 4, 3
X = jnp.ones((2, M))


def fn(v, x):
    x = jnp.tanh(x @ v["in"] * v["in_scale"][None])
    return jnp.tanh(x @ v["mid"] * v["mid_scale"][None]) @ v["out"]


PARAMS = {
    "in": jnp.full((M, N), 0.5),
    "in_scale": jnp.ones(N),
    "mid": jnp.full((N, H), 0.25),
    "mid_scale": jnp.ones(H),
    "out": jnp.ones((H, K)),
}
GRAPH = reg.trace_channels(fn, PARAMS, X)


def steps(penalty, strength, count, params=PARAMS):
    """What was warned in some steps whose gradients are zero, and the strengths at the end."""
    regularizer = reg.NetworkRegularizer(GRAPH, reg.flops(GRAPH), penalty, threshold=0.0)
    tx = reg.proximal(optax.sgd(0.1), regularizer, strength)
    state, nothing = tx.init(params), jax.tree.map(jnp.zeros_like, params)

    @jax.jit
    def step(params, state):
        updates, state = tx.update(nothing, state, params)
        return optax.apply_updates(params, updates), state

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(count):
            params, state = step(params, state)
        jax.block_until_ready(params)
        jax.effects_barrier()
    assert {one.category for one in told} <= {reg.DeadGroupWarning}
    return [str(one.message) for one in told], regularizer.strengths(params)


@pytest.mark.parametrize("penalty", ["group_lasso", "gamma", "gates"])
def test_a_group_that_dies_as_a_whole_is_told_once(penalty):
    params = PARAMS | ({"gates": gates.init(GRAPH)} if penalty == "gates" else {})
    told, left = steps(penalty, lambda step: jnp.where(step < 9, 3.0, 0.0), 12, params)
    assert [name for name, s in left.items() if not s.any()] == ["in", "mid"]
    for name, width, message in zip(
        ("in", "mid"), (N, H), sorted(told, key=lambda one: "'mid'" in one), strict=True
    ):
        assert f"all {width} channels of the group '{name}'" in message
        assert f"layers '{name}'" in message
        assert "under a strength of 3:" in message
        assert "morph.Budget" in message


def test_what_leaves_a_channel_says_nothing():
    half = {**PARAMS, "in": PARAMS["in"].at[:, 3].set(9.0), "mid": PARAMS["mid"].at[:, 2].set(9.0)}
    told, left = steps("group_lasso", 3.0, 9, half)
    assert told == []
    assert [int((s > 0).sum()) for s in left.values()] == [1, 1]


def test_a_strength_that_is_left_to_the_state_is_not_watched():
    regularizer = reg.NetworkRegularizer(GRAPH, reg.flops(GRAPH), threshold=0.0)
    for strength, watched in ((0.0, False), (0.1, True)):
        tx = reg.proximal(optax.sgd(0.1), regularizer, strength)
        text = str(jax.make_jaxpr(tx.update)(PARAMS, tx.init(PARAMS), PARAMS))
        assert ("debug_callback" in text) is watched
