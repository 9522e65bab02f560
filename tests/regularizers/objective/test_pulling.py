"""Parameters in half precision are pulled as much as others."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import regularizers as reg

X = jnp.ones((2, 6))


def network(v, x):
    x = x.astype(jnp.float32)
    return jnp.tanh(x @ v["a"].astype(jnp.float32) + v["bias"].astype(jnp.float32)[None]) @ v["z"]


def drawn(a, bias):
    rng = np.random.default_rng(0)
    return {
        "a": jnp.asarray(rng.normal(size=(6, 7)), a),
        "bias": jnp.asarray(rng.normal(size=7) / 4.0, bias),
        "z": jnp.asarray(rng.normal(size=(7, 3)), jnp.float32),
    }


def pulled(regularizer, params, strength, steps):
    """Strengths over some steps with gradients of zero, and the parameters at the end."""
    tx = reg.proximal(optax.sgd(0.0), regularizer, strength)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), regularizer.strengths(params)["a"]

    first = params, tx.init(params)
    (params, _), seen = jax.jit(lambda c: jax.lax.scan(step, c, length=steps))(first)
    return params, seen


@pytest.mark.parametrize(
    ("kernel", "bias"),
    [("bfloat16", "bfloat16"), ("float16", "float16"), ("bfloat16", "float32")],
)
def test_they_die_when_float32_does(kernel, bias):
    exact, coarse = drawn(jnp.float32, jnp.float32), drawn(kernel, bias)
    graph = reg.trace_channels(network, exact, X)
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph), threshold=0.0)
    # One step takes far less than half precision can tell from nothing.
    strength, steps = 0.01, 800
    _, wanted = pulled(regularizer, exact, strength, steps)
    params, found = pulled(regularizer, coarse, strength, steps)
    assert params["a"].dtype == kernel
    np.testing.assert_allclose(found, wanted, atol=0.02)
    assert (np.asarray(wanted[-1]) == 0.0).any()
    np.testing.assert_array_equal(params["a"][:, np.asarray(found[-1]) == 0.0], 0.0)
    np.testing.assert_array_equal(params["bias"][np.asarray(found[-1]) == 0.0], 0.0)
    death = [np.argmax(np.asarray(s) == 0.0, axis=0) for s in (found, wanted)]
    np.testing.assert_allclose(*death, atol=steps // 50)


@pytest.mark.filterwarnings("ignore::regularizers.errors.DeadGroupWarning")
def test_gates_in_half_precision_close():
    graph = reg.trace_channels(network, drawn(jnp.float32, jnp.float32), X)
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph), "gates", threshold=0.0)
    params = drawn(jnp.float32, jnp.float32)
    params["gates"] = {"a": jnp.full(7, 3.0, jnp.bfloat16)}
    params, found = pulled(regularizer, params, 0.01, 700)
    np.testing.assert_allclose(found[100], 0.9526 - 101 * 0.01 / 7, atol=0.005)
    assert (np.asarray(found[-1]) == 0.0).all()


def test_nothing_is_owed_where_everything_is_float32():
    params = drawn(jnp.float32, jnp.float32)
    graph = reg.trace_channels(network, params, X)
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph), threshold=0.0)
    state = reg.proximal(optax.sgd(0.1), regularizer).init(params)
    assert jax.tree.leaves(state.owed) == []
