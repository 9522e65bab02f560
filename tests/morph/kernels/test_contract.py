"""Contractions cost what the best path costs."""

from itertools import product

import jax
import jax.numpy as jnp
import opt_einsum
import pytest

import morph
from morph.kernels.factorized import Factorized
from morph.kernels.formats import tt


@pytest.mark.parametrize(("batch", "cores"), list(product((1, 16), (2, 3))))
def test_the_compiled_flops_are_those_of_the_optimal_path(batch, cores):
    format, sizes = tt((64, 64), "io", cores=cores)
    sizes = {n: min(size, 4) if n in format.bonds else size for n, size in sizes.items()}
    kernel = Factorized(cores=tuple(map(jnp.ones, format.core_shapes(sizes))), format=format)
    x = jnp.ones((batch, *(sizes[n] for n in format.axes[0])))
    letters = {n: opt_einsum.get_symbol(k) for k, n in enumerate(["n", *sizes])}
    operands = [("n", *format.axes[0]), *format.labels]
    subscripts = ",".join("".join(letters[n] for n in own) for own in operands)
    out = "".join(letters[n] for n in ("n", *format.axes[1]))
    arrays = [x, *kernel.cores]
    _, path = opt_einsum.contract_path(f"{subscripts}->{out}", *arrays, optimize="optimal")
    fn = morph.tensorized(lambda variables, x: x @ variables["k"])
    compiled = jax.jit(fn).lower({"k": kernel}, x.reshape(batch, 64)).compile()
    counted = compiled.cost_analysis()["flops"]
    assert counted <= 1.02 * float(path.opt_cost)
