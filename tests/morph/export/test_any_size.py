"""A function of any size, by its equations at a few."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from morph.errors import ExportError
from morph.export.any_size import of_any_size

pytest.importorskip("flatbuffers")

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(4, 4)).astype(np.float32)


def known(n):
    """A size as a number, which code that is traced for any size has not."""
    return int(n)


def recurrent(kernel, x):
    """A scan over the batch's features, a branch, a mean over a length, a loop."""
    n, length = map(known, x.shape[:2])
    start = jnp.zeros((n, length, 4)) + jnp.ones((n * length,)).reshape(n, length, 1)
    carry, _ = jax.lax.scan(lambda c, row: (jnp.tanh(c @ kernel + row), None), start, x[None])
    shifted = jax.lax.cond(x[0, 0, 0] > 9, lambda c: c + 1, jnp.sin, carry)
    _, looped = jax.lax.while_loop(
        lambda own: own[0] < 2, lambda own: (own[0] + 1, own[1] * 0.5), (0, shifted)
    )
    return looped.sum(1) / known(x.shape[1])


def opened(fn, x, shapes, **options):
    """The jaxpr for sizes without values, which runs at any."""
    structs = export.symbolic_args_specs(jax.ShapeDtypeStruct(x.shape, x.dtype), shapes, **options)
    return export.export(jax.jit(fn))(structs).call


@pytest.mark.promotes
def test_two_sizes_scans_branches_loops_and_divisors():
    x = RNG.normal(size=(2, 3, 4)).astype(np.float32)
    general = of_any_size(recurrent, {"batch": 2, "length": 3})
    run = opened(lambda x: general(KERNEL, x), x, "batch, length, ...")
    for shape in ((2, 3, 4), (5, 7, 4)):
        x = RNG.normal(size=shape).astype(np.float32)
        np.testing.assert_allclose(run(x), recurrent(KERNEL, x), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(general(KERNEL, x), recurrent(KERNEL, x))


def by_number(kernel, x):
    """Other equations from a number of examples on."""
    return jnp.sin(x @ kernel) if known(len(x)) > 100 else x @ kernel


def by_table(kernel, x):
    """An array that is as long as the batch."""
    return x @ kernel + np.arange(known(len(x)), dtype=np.float32)[:, None]


def by_square(kernel, x):
    """No sum of products of a size."""
    return jnp.broadcast_to((x @ kernel).sum(), (known(len(x)) ** 2,))


@pytest.mark.promotes
@pytest.mark.parametrize("fn", [by_number, by_table, by_square])
def test_what_differs_with_the_size_is_refused(fn):
    x = RNG.normal(size=(2, 4)).astype(np.float32)
    with pytest.raises(ExportError, match=r"differ|no sum"):
        opened(lambda x: of_any_size(fn, {"batch": 2})(KERNEL, x), x, "batch, ...")


@pytest.mark.promotes
def test_sizes_may_have_a_limit():
    """Where much more than the example has cannot be traced."""
    x = RNG.normal(size=(2, 4)).astype(np.float32)

    def added(table, x):
        return x + table[: known(len(x))]

    general = of_any_size(added, {"length": 2})
    table = RNG.normal(size=(9, 4)).astype(np.float32)
    run = opened(lambda x: general(table, x), x, "length, ...", constraints=["length <= 9"])
    np.testing.assert_allclose(run(table[:9]), 2 * table)


def test_a_shrunk_network_has_the_equations_of_any_other(shrunk):
    """No axes of one element, which laying a batch over single examples leaves."""
    _, fn, variables, x = shrunk
    general = of_any_size(fn, {"batch": len(x)})
    structs = export.symbolic_args_specs(jax.ShapeDtypeStruct(x.shape, x.dtype), "batch, ...")
    eqns = jax.make_jaxpr(general)(variables, structs).jaxpr.eqns
    assert max(len(v.aval.shape) for eqn in eqns for v in eqn.outvars) == 4
