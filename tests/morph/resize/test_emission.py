"""One equation, evaluated again at new sizes."""

import jax.numpy as jnp
import numpy as np

import morph
import regularizers as reg
from morph.resize.emission import emit
from morph.resize.sizes import Sizes
from regularizers.primitives.jaxprs import primitives as p

KEEP = np.asarray([True, False, True, True, False, True, False])  # 4 of 7


def steps_of(fn, **shapes):
    """The equations of a function of `h` = x a, [2, 7], and the sizes when `a` is cut to 4."""
    v = {name: np.ones(shape, np.float32) for name, shape in {"a": (5, 7), **shapes}.items()}
    graph = reg.trace_channels(lambda v, x: fn(x @ v["a"], v), v, np.ones((2, 5), np.float32))
    return graph.body.steps, Sizes.at(morph.shrink(graph, {"a": KEEP}))


def last(steps, primitive):
    return [step for step in steps if step.primitive is primitive][-1]


def test_static_sizes_are_those_of_the_terms(rng):
    steps, sizes = steps_of(
        lambda h, v: jnp.broadcast_to(h[:, None], (2, 3, 7)).reshape(2, 21) @ v["z"], z=(21, 4)
    )
    h = rng.normal(size=(2, 4)).astype(np.float32)
    (wide,) = emit(last(steps, p.broadcast_in_dim_p), [h[:, None]], sizes)
    np.testing.assert_array_equal(wide, np.stack([h] * 3, 1))
    (flat,) = emit(last(steps, p.reshape_p), [wide], sizes)
    np.testing.assert_array_equal(flat, np.concatenate([h] * 3, 1))


def test_an_order_is_that_of_the_channels_that_are_left(rng):
    order = [6, 0, 2, 5, 3, 1, 4]
    steps, sizes = steps_of(lambda h, v: jnp.tanh(h[:, jnp.asarray(order)]) @ v["z"], z=(7, 4))
    (step,) = (step for step in steps if step.moves)
    h = rng.normal(size=(2, 7)).astype(np.float32)
    small = h[:, KEEP]
    values = [small, *(np.zeros(v.aval.shape, v.aval.dtype) for v in step.eqn.invars[1:])]
    (found,) = emit(step, values, sizes)
    np.testing.assert_array_equal(found, h[:, [i for i in order if KEEP[i]]])


def test_a_segment_of_no_width_takes_no_part(rng):
    steps, sizes = steps_of(lambda h, v: jnp.concatenate([h, h, jnp.ones((2, 3))], 1) @ v["z"],
                            z=(17, 4))  # fmt: skip
    step = last(steps, p.concatenate_p)
    none = Sizes(seed=sizes.seed, parents={**sizes.parents, "a": np.zeros(0, int)})
    ones = np.ones((2, 3), np.float32)
    (found,) = emit(step, [np.ones((2, 0), np.float32)] * 2 + [ones], none)
    np.testing.assert_array_equal(found, ones)
