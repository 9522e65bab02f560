"""What JAX keeps in equations, read by meaning; an unknown layout is refused."""

import functools
import re
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import morph
import regularizers as reg
from regularizers.primitives import jaxprs

ROOT = Path(__file__).parents[3]


def equation(fn, *args, name):
    """The one equation of a function that has this name."""
    (found,) = [e for e in jax.make_jaxpr(fn)(*args).eqns if e.primitive.name == name]
    return found


def scanned(x, w):
    def body(carry, entry):
        return carry * w + entry, (carry, entry * w)

    return jax.lax.scan(body, x, jnp.ones((4, 5)), reverse=True, unroll=2)


def looped(x, w):
    return jax.lax.while_loop(lambda c: (c * w).sum() < 9.0, lambda c: c + w * x, x)


@functools.partial(jax.lax.composite, name="morph.twice")
def twice(x):
    return x * 2.0


def test_a_scan_is_read_by_meaning():
    eqn = equation(scanned, jnp.ones(5), jnp.ones(5), name="scan")
    assert jaxprs.scan_of(eqn) == (1, 1, 4, True, 2)


def test_a_while_loop_is_read_by_meaning():
    eqn = equation(looped, jnp.ones(5), jnp.ones(5), name="while")
    assert jaxprs.while_of(eqn) == (1, 2)


@pytest.mark.parametrize(
    ("fn", "args", "name", "count"),
    [
        (scanned, 2, "scan", 1),
        (looped, 2, "while", 2),
        (twice, 1, "composite", 1),
        (lambda x: jax.lax.cond(x[0] > 0.0, jnp.sin, jnp.cos, x), 1, "cond", 2),
        (jax.jit(jnp.sin), 1, "jit", 1),
    ],
)
def test_the_bodies_of_an_equation_are_found(fn, args, name, count):
    bodies = jaxprs.bodies_of(equation(fn, *[jnp.ones(5)] * args, name=name))
    assert [type(body) for body in bodies] == [jaxprs.ClosedJaxpr] * count
    assert all(body.jaxpr.eqns for body in bodies)


READ = {
    "scan": (jaxprs.scan_of, scanned, 2),
    "while": (jaxprs.while_of, looped, 2),
    "composite": (jaxprs.bodies_of, twice, 1),
}


@pytest.mark.parametrize("name", READ)
def test_an_unknown_layout_is_refused_with_the_versions(name):
    read, fn, args = READ[name]
    eqn = equation(fn, *[jnp.ones(5)] * args, name=name).replace(params={"new": 1})
    message = f"of {name} .* in JAX {re.escape(jax.__version__)} .* new; supported are JAX 0.10"
    with pytest.raises(jaxprs.UnknownLayoutError, match=message):
        read(eqn)


def test_a_scan_of_other_trees_is_refused():
    eqn = equation(scanned, jnp.ones(5), jnp.ones(5), name="scan")
    eqn = eqn.replace(params={**eqn.params, "ft_in": ()})
    with pytest.raises(jaxprs.UnknownLayoutError, match="constants, carry and entries"):
        jaxprs.scan_of(eqn)


@jax.custom_vjp
def scaled(x, unused):
    return x * 2.0


# Not the derivative: so that the test sees whose rule was used.
scaled.defvjp(lambda x, unused: (x * 2.0, x), lambda x, slope: (7.0 * slope + x, None))


def network(variables, x):
    hidden = scaled(x @ variables["first"], jnp.ones(3))
    return hidden @ variables["second"]


def small_network():
    key = jax.random.key(0)
    variables = {
        "first": jax.random.normal(key, (3, 5)),
        "second": jax.random.normal(jax.random.fold_in(key, 1), (5, 2)),
    }
    return variables, jax.random.normal(jax.random.fold_in(key, 2), (4, 3))


def test_a_users_backward_rule_is_what_differentiates_the_compact_network():
    variables, x = small_network()
    graph = reg.trace_channels(network, variables, x)
    (name,) = graph.groups
    keep = np.array([True, False, True, True, False])
    arch = morph.shrink(graph, {name: keep})
    small, compact = arch.take(variables), morph.compact(network, arch)

    def loss(fn):
        return lambda variables: (fn(variables, x) ** 2).sum()

    got = jax.grad(loss(compact))(small)
    masked = graph.mask(variables, {name: keep})
    want = arch.take(jax.grad(loss(network))(masked))
    assert all(np.abs(leaf).max() > 0.1 for leaf in jax.tree.leaves(got))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), got, want)


@pytest.mark.parametrize("results", [[1, None], ([1, None], None), (1, None)])
def test_cotangents_of_a_backward_rule(results):
    eqn = equation(scaled, jnp.ones(3), jnp.ones(3), name="custom_vjp_call")
    assert jaxprs._cotangents(eqn, results) == [1, None]


def test_a_backward_rule_with_logs_is_refused():
    eqn = equation(scaled, jnp.ones(3), jnp.ones(3), name="custom_vjp_call")
    with pytest.raises(jaxprs.UnknownLayoutError, match="a backward rule without logs"):
        jaxprs._cotangents(eqn, ([1, None], {"norm": 1}))


def test_pyproject_bounds_what_is_said_to_be_supported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "jax>=0.10,<0.13" in project["dependencies"]
    assert jaxprs.SUPPORTED == "0.10 to 0.12"
