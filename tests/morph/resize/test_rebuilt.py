"""Calls and control flow around other bodies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morph.resize.rebuilt import REBUILT
from regularizers.primitives import jaxprs

CALLS = {
    "scan": lambda x: jax.lax.scan(lambda c, row: (c + row, c), x[0], x)[1],
    "while": lambda x: jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: c + 1, x),
    "cond": lambda x: jax.lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x),
    "remat2": lambda x: jax.checkpoint(jnp.sin)(x),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_what_it_was_of_arrays_of_another_size(name):
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(3, 2)
    closed = jax.make_jaxpr(CALLS[name])(x)
    (eqn,) = [eqn for eqn in closed.jaxpr.eqns if eqn.primitive in REBUILT]

    def again(*operands):
        runs = [jax.extend.core.jaxpr_as_fun(body) for body in jaxprs.bodies_of(eqn)]
        return REBUILT[eqn.primitive](eqn, operands, [lambda own, f=f: list(f(*own)) for f in runs])

    (made,) = jax.make_jaxpr(again)(*[v.aval for v in eqn.invars]).jaxpr.eqns[-1:]
    assert made.primitive is eqn.primitive
