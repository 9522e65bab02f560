"""Calls that the new sizes do not fit are refused, with the line that fixes one."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from resized import assert_close, normal, shrink_function

import morph


def mlp(v, x):
    return nn.relu(x @ v["a"]) @ v["c"]


def shrunk_mlp():
    variables, x = {"a": normal(5, 7), "c": normal(7, 3)}, normal(2, 5)
    _, small, _, arch = shrink_function(mlp, variables, x, alive={"a": np.arange(7) < 4})
    return arch, small, x


def test_call_that_fixes_a_resized_width_is_refused():
    arch, small, x = shrunk_mlp()
    fixes = morph.compact(lambda v, x: jnp.sort(x @ v["a"]) @ v["c"], arch)
    wanted = r"cannot resize group 'a' in this call: sorted along it \[.*test_sizes\.py:\d+"
    with pytest.raises(ValueError, match=wanted):
        fixes(small, x)


def test_call_that_ties_two_resized_widths_is_refused():
    variables = {"a": normal(5, 7), "b": normal(5, 7), "c": normal(14, 3)}
    x = normal(2, 5)

    def apart(v, x):
        return jnp.concatenate([x @ v["a"], x @ v["b"]], 1) @ v["c"]

    def tied(v, x):
        return (x @ v["a"] + x @ v["b"]) @ v["c"][:7]

    _, small, _, arch = shrink_function(apart, variables, x)
    with pytest.raises(ValueError, match=r"cannot resize group 'a' in this call: ties a to b"):
        morph.compact(tied, arch)(small, x)


def test_call_that_splits_a_resized_width_is_refused():
    arch, small, x = shrunk_mlp()
    splits = morph.compact(lambda v, x: (x @ v["a"])[:, :2] @ v["c"][:2], arch)
    with pytest.raises(ValueError, match=r"cannot resize group 'a' in this call: "):
        splits(small, x)


@jax.custom_vjp
def sorts_backwards(x):
    return jnp.sin(x)


sorts_backwards.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (jnp.sort(x, 1) * g,))


def test_derivative_rule_that_fixes_a_resized_width_is_refused_and_breaks_nothing():
    def fn(v, x):
        return (sorts_backwards(x @ v["a"]) + v["b"].reshape(1, -1)) @ v["c"]

    variables, x = {"a": normal(5, 7), "b": normal(7), "c": normal(7, 3)}, normal(2, 5)
    small_fn, small, masked, _ = shrink_function(fn, variables, x)
    assert_close(small_fn(small, x), fn(masked, x))
    with pytest.raises(ValueError, match="cannot resize group 'a' in this call: sorted along it"):
        jax.grad(lambda v: small_fn(v, x).sum())(small)
    assert_close(small_fn(small, x), fn(masked, x))
