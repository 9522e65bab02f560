"""Sums over variables that devices share; `tests/mesh_run.py` has eight of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from regularizers.objective.sums import SharedSums, Sums

SHAPES = {"a": (3, 5), "b": (5,), "c": (2, 3, 4), "whole": (2, 2)}
SPECS = {"a": P("x", None), "b": P(("x", "y")), "c": P(None, None, "y"), "whole": P()}


@pytest.fixture
def shared():
    mesh = Mesh(np.asarray(jax.devices()[:1]).reshape(1, 1), ("x", "y"))
    return SharedSums(mesh, lambda path, shape: SPECS[path])


def made(sums, arrays):
    """Some of every kind; what is made of them is no sum of them."""
    along = {name: sums.of(name, a.shape)(a, a.ndim - 1) for name, a in arrays.items()}
    later = sums.after(arrays)
    over = {name: sums.of(name, a.shape)(jnp.square(a), None) for name, a in later.items()}
    return jax.tree.map(lambda one, other: one / other, along, over)


def test_shared_sums_are_those_of_one_device_and_one_exchange(shared, rng):
    arrays = {name: rng.normal(size=shape).astype("f") for name, shape in SHAPES.items()}
    expected = jax.jit(lambda a: Sums().together(lambda sums: made(sums, a)))(arrays)
    np.testing.assert_allclose(expected["b"], arrays["b"] / np.square(arrays["b"]).sum(), rtol=1e-5)

    def together(arrays):
        laid = {name: shared.laid(name, a) for name, a in arrays.items()}
        return shared.whole(shared.together(lambda sums: made(sums, laid)))

    program = jax.jit(together).lower(arrays)
    jax.tree.map(np.testing.assert_allclose, program.compile()(arrays), expected)
    assert program.as_text().count("all_reduce") == 1


def test_sums_of_nothing_that_is_divided_are_no_exchange(shared):
    whole = {"whole": jnp.ones((2, 2))}
    program = jax.jit(lambda a: shared.together(lambda sums: made(sums, a))).lower(whole)
    assert "all_reduce" not in program.as_text()


def test_what_is_not_needed_is_not_made_on_one_device_alone(shared):
    for sums, kind in ((Sums(), "cond"), (shared, "select_n")):

        def chosen(flag, sums=sums):
            return sums.only_if(flag, lambda: {"a": 1.0}, lambda: {"a": 0.0})

        assert (chosen(jnp.asarray(True))["a"], chosen(jnp.asarray(False))["a"]) == (1.0, 0.0)
        assert kind in str(jax.make_jaxpr(chosen)(True))
