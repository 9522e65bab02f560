"""What a call means survives the resizing: derivative rules of one's own, rematerialisation."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import primitives
from resized import GRADIENT, assert_close, normal, odd_jvp, shrink_function


@jax.custom_vjp
def odd_vjp(x, y):
    return x * y


odd_vjp.defvjp(
    lambda x, y: (x * y, (x, jnp.tanh(y))),
    lambda residuals, g: (1000.0 * g * residuals[1], g + residuals[0]),
)


@pytest.mark.parametrize(
    "act",
    [odd_jvp, lambda h: odd_vjp(h, jnp.square(h)), lambda h: odd_vjp(h, h), jax.jit(odd_jvp)],
    ids=["custom_jvp", "custom_vjp", "custom_vjp of one value", "custom_jvp in jit"],
)
def test_derivative_rules_of_the_users_own_survive(act):
    def loss(fn, x):
        return jax.value_and_grad(lambda v: (fn(v, x) ** 2).sum())

    def fn(v, x):
        return act(x @ v["a"]) @ v["c"]

    variables, x = {"a": normal(5, 7), "c": normal(7, 3)}, normal(2, 5)
    small_fn, small, masked, arch = shrink_function(fn, variables, x)
    expected, dense_gradients = loss(fn, x)(masked)
    found, gradients = loss(small_fn, x)(small)
    assert_close(found, expected)
    assert_close(gradients, arch.take(dense_gradients), GRADIENT)


def test_custom_jvp_in_forward_mode():
    def fn(v, x):
        return odd_jvp(x @ v["a"]) @ v["c"]

    variables, x = {"a": normal(5, 7), "c": normal(7, 3)}, normal(2, 5)
    small_fn, small, masked, arch = shrink_function(fn, variables, x)
    expected = jax.jvp(lambda v: fn(v, x), (masked,), (masked,))
    found = jax.jvp(lambda v: small_fn(v, x), (small,), (arch.take(masked),))
    assert_close(found, expected)


def test_custom_jvp_with_an_argument_that_is_no_number():
    @jax.custom_jvp
    def pick(which, x):
        return jnp.where(which > 0, x, -x)

    @pick.defjvp
    def _(primals, tangents):
        return pick(*primals), 7.0 * tangents[1]

    def fn(v, which, x):
        return pick(which, x @ v["a"]) @ v["c"]

    variables, inputs = {"a": normal(5, 7), "c": normal(7, 3)}, (jnp.int32(1), normal(2, 5))
    small_fn, small, masked, arch = shrink_function(fn, variables, *inputs)
    expected = jax.grad(lambda v: fn(v, *inputs).sum())(masked)
    found = jax.grad(lambda v: small_fn(v, *inputs).sum())(small)
    assert_close(found, arch.take(expected), GRADIENT)


@pytest.mark.parametrize("policy", [None, jax.checkpoint_policies.dots_saveable])
def test_remat_survives(policy):
    def fn(v, x):
        return jax.checkpoint(lambda x: nn.relu(x @ v["a"]) @ v["c"], policy=policy)(x)

    variables, x = {"a": normal(5, 7), "c": normal(7, 3)}, normal(2, 5)
    small_fn, small, masked, arch = shrink_function(fn, variables, x)
    jaxpr = jax.make_jaxpr(small_fn)(small, x)
    (remat,) = [eqn for eqn in jaxpr.eqns if eqn.primitive is primitives.remat_p]
    assert remat.params["policy"] is policy
    expected = jax.grad(lambda v: (fn(v, x) ** 2).sum())(masked)
    found = jax.grad(lambda v: (small_fn(v, x) ** 2).sum())(small)
    assert_close(found, arch.take(expected), GRADIENT)
