"""The rows that kernels multiply, against what the layers answer."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import regularizers as reg
from morph.tensorize.fit import matrix
from morph.tensorize.layers import kernels_of
from morph.tensorize.samples import inputs_of
from regularizers.channels.following import Following, following

NHWC = ("NHWC", "HWIO", "NHWC")


def drawn(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def rows_and_roles(fn, variables, x, **options):
    graph = reg.trace_channels(fn, variables, x)
    roles = {path: kernel.roles for path, kernel in kernels_of(graph).items()}
    return inputs_of(graph, [*jax.tree.leaves(variables), x], roles, **options), roles


conv = partial(lax.conv_general_dilated, dimension_numbers=NHWC)


@pytest.mark.parametrize(
    ("fn", "kernel", "x"),
    [
        (lambda w, x: x @ w, (5, 7), (2, 3, 5)),
        (lambda w, x: lax.dot_general(x, w, (((2,), (0,)), ((), ()))), (5, 3, 7), (2, 4, 5)),
        (lambda w, x: jnp.einsum("nhd,hdo->no", x, w), (3, 4, 7), (2, 3, 4)),
        (lambda w, x: jnp.einsum("ndh,hdo->no", x, w), (3, 4, 7), (2, 4, 3)),
        (lambda w, x: x @ w.T, (7, 5), (2, 5)),
        (lambda w, x: x @ w.reshape(20, 7), (4, 5, 7), (2, 20)),
        (lambda w, x: conv(x, w, (2, 3), "VALID"), (1, 1, 4, 7), (2, 5, 6, 4)),
        (lambda w, x: conv(x, w, (1, 1), "SAME"), (3, 2, 4, 7), (2, 5, 6, 4)),
        (
            lambda w, x: conv(x, w, (2, 1), ((1, 0), (2, 3)), rhs_dilation=(2, 3)),
            (3, 2, 4, 7),
            (2, 9, 6, 4),
        ),
        (
            lambda w, x: conv(x, w, (1, 2), ((1, 1), (1, 0)), lhs_dilation=(2, 3)),
            (2, 3, 4, 7),
            (2, 4, 3, 4),
        ),
        (
            lambda w, x: lax.conv_general_dilated(
                x, w, (2,), "VALID", dimension_numbers=("NCH", "OIH", "NHC")
            ),
            (7, 4, 3),
            (2, 4, 9),
        ),
    ],
)
def test_rows_times_the_kernel_are_the_answers(fn, kernel, x):
    w, x = drawn(0, *kernel), drawn(1, *x)
    rows, roles = rows_and_roles(lambda variables, x: fn(variables["w"], x), {"w": w}, x)
    answers = rows["w"].astype(np.float64) @ matrix(w, roles["w"])
    expected = np.asarray(fn(w, x))
    np.testing.assert_allclose(answers, expected.reshape(len(answers), -1), atol=1e-5)


def test_all_uses_count_but_no_lookups_and_nothing_inside_of_loops():
    def fn(variables, x):
        table, shared, stack = (variables[name] for name in ("table", "shared", "stack"))
        y = table[jnp.arange(4)] + x
        y = jnp.tanh(y @ shared) @ shared
        y, _ = lax.scan(lambda y, w: (jnp.tanh(y @ w), None), y, stack)
        return y @ table.T

    variables = {"shared": drawn(0, 5, 5), "stack": drawn(1, 3, 5, 5), "table": drawn(2, 6, 5)}
    x = drawn(3, 4, 5)
    rows, roles = rows_and_roles(fn, variables, x)
    assert {path: len(own) for path, own in rows.items()} == {"shared": 8, "table": 4}
    assert roles == {"shared": "io", "stack": "bio", "table": "oi"}
    np.testing.assert_allclose(rows["shared"][:4], variables["table"][:4] + x, atol=1e-6)
    few, _ = rows_and_roles(fn, variables, x, most=3)
    assert len(few["shared"]) == 6
    assert all((row == rows["shared"]).all(1).any() for row in few["shared"])


def test_what_follows_a_layer():
    names = ("plain", "norm", "twice", "other", "early", "transposed", "wide")

    def fn(variables, x):
        w, b = ({name: variables[kind][name] for name in names} for kind in ("w", "b"))
        x = jax.nn.relu(x @ w["plain"] + b["plain"][None])
        x = jax.jit(lambda x, w, mean: jnp.tanh(x @ w - mean[None]))(x, w["norm"], b["norm"])
        x = (
            jnp.maximum(x @ w["twice"] + b["twice"][None], 0.0) * b["twice"][None]
        )  # its bias has two uses
        y = x @ w["other"] + b["other"][None]
        x = jax.nn.relu(y) + y  # not only a relu reads it
        x = jax.nn.relu(b["early"][None] - x @ w["early"])  # it is the answer that is subtracted
        x = jax.nn.relu6(x @ w["transposed"].T + b["transposed"][None])
        return jax.nn.relu(x @ w["wide"] + b["wide"].sum())

    variables = {
        "w": {name: jnp.ones((5, 5)) for name in names},
        "b": {name: jnp.ones(5) for name in names},
    }
    found = following(reg.trace_channels(fn, variables, jnp.ones((2, 5))))
    assert found == {
        "w/plain": Following(bias="b/plain", relu=True),
        "w/norm": Following(bias="b/norm", sign=-1.0),
        "w/twice": Following(),
        "w/other": Following(bias="b/other"),
        "w/early": Following(),
        "w/wide": Following(),
    }
