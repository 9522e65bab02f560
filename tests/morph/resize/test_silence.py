"""What is zero because its variables are gone, and what is needed no more."""

import jax
import jax.numpy as jnp

import regularizers as reg
from morph.resize.silence import Silence, find_silence, kept_operand, zeros_of
from regularizers.primitives.jaxprs import primitives as p


def body_of(fn):
    variables = {name: jax.ShapeDtypeStruct((5, 5), jnp.float32) for name in ("a", "b")}
    return reg.trace_channels(fn, variables, jax.ShapeDtypeStruct((2, 5), jnp.float32)).body


def live(body, silence):
    return [step.primitive for step in body.steps if silence.is_live(body, step)]


def test_only_zeros_need_what_is_left_out():
    """The branch through `a` is zero, so its tanh goes, and the sum keeps its other operand."""
    body = body_of(lambda v, x: jnp.sin(jnp.tanh(jnp.cos(x) @ v["a"]) + x @ v["b"]))
    silence = find_silence(body, gone=[0], dropped=[])
    assert live(body, silence) == [p.dot_general_p, p.add_p, p.sin_p]
    (add,) = (step for step in body.steps if step.primitive is p.add_p)
    is_zero = [silence.is_zero(body, v) for v in add.eqn.invars]
    assert is_zero == [True, False]
    assert kept_operand(add, is_zero) == 1
    assert kept_operand(add, [False, False]) is None
    zeros = zeros_of(add.eqn.invars[0], (2, 3))
    assert (zeros.shape, zeros.dtype, bool(zeros.any())) == ((2, 3), jnp.float32, False)


def test_what_nobody_wants_is_not_computed():
    body = body_of(lambda v, x: (x @ v["a"], jnp.sin(x @ v["b"])))
    assert live(body, find_silence(body, gone=[], dropped=[1])) == [p.dot_general_p]


def test_calls_are_walked_and_what_is_not_known_runs_whole():
    @jax.jit
    def inner(x, a, b):
        return jnp.sin(x @ a), jnp.cos(x @ b)

    body = body_of(lambda v, x: inner(x, v["a"], v["b"])[1])
    silence = find_silence(body, gone=[], dropped=[])
    (call,) = (step for step in body.steps if step.bodies)
    assert live(call.bodies[0], silence) == [p.dot_general_p, p.cos_p]
    assert live(call.bodies[0], Silence()) == [step.primitive for step in call.bodies[0].steps]
