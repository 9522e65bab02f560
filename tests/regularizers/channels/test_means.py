"""Which divisions turn a sum into a mean."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax import lax

from regularizers.channels.inference import Inference
from regularizers.channels.means import Divisor, find_means
from regularizers.primitives import jaxprs
from regularizers.primitives.terms import Atom

B, H, N = 3, 5, 7


def means(fn, *shapes):
    """(sizes of the axes, degrees of freedom lost, whether a factor) of every mean in `fn`."""
    structs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    closed, _ = jaxprs.trace(fn, *structs)
    inference = Inference()
    body = inference.run(closed, [inference.fresh_axes(shape) for shape in shapes])
    return sorted(
        (tuple(axis.size for axis in found.axes), found.lost, found.inverse)
        for found in find_means(body).values()
    )


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (lambda h: h.mean(2), [((N,), 0, False)]),
        (lambda h: h.mean((1, 2)), [((H, N), 0, False)]),
        (lambda h: h.mean(), [((B, H, N), 0, False)]),
        (lambda h: h.mean(2, keepdims=True), [((N,), 0, False)]),
        (lambda h: h.var(2), [((N,), 0, False)] * 2),
        (lambda h: h.var(2, ddof=1), [((N,), 0, False), ((N,), 1, False)]),
        (lambda h: h.std(1), [((H,), 0, False)] * 2),
        (lambda h: h.sum(2) * (1.0 / N), [((N,), 0, True)]),
        (lambda h: (1.0 / N) * h.sum(2), [((N,), 0, True)]),
        (lambda h: h.sum(2) / jnp.float32(N), [((N,), 0, False)]),
        (lambda h: h.sum(2).sum(1) / (H * N), [((N, H), 0, False)]),
        (lambda h: h.mean(2).mean(1), [((H,), 0, False), ((N,), 0, False)]),
        (lambda h: lax.rsqrt(jnp.square(h).mean(2) + 1e-6), [((N,), 0, False)]),
        (lambda h: h.astype(jnp.bfloat16).mean(2), [((N,), 0, False)]),
        (lambda h: jax.jit(lambda s: s / N)(h.sum(2)), [((N,), 0, False)]),
        (lambda h: jnp.broadcast_to(h.sum(2)[:, :, None], h.shape) / N, [((N,), 0, False)]),
    ],
)
def test_means(fn, expected):
    assert means(fn, (B, H, N)) == expected


@pytest.mark.parametrize(
    "fn",
    [
        lambda h: h.sum(2) / H,  # n of another axis
        lambda h: h.sum(2) / 2.0,  # a temperature
        lambda h: h.sum(2) * N,
        lambda h: N / h.sum(2),
        lambda h: h.max(2) / N,
        lambda h: h / N,
        lambda h: jnp.tanh(h.sum(2)) / N,
        lambda h: (h.sum(2) + 1.0) / N,
        lambda h: h.sum(2) / h[:, :, 0],
        lambda h: h.sum(2) / 0.0,
    ],
)
def test_other_divisions(fn):
    assert means(fn, (B, H, N)) == []


def test_group_norm_counts_what_is_in_a_group():
    model = nn.GroupNorm(num_groups=2)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 4, 4, 6)))
    found = means(
        lambda scale, bias, x: model.apply({"params": {"scale": scale, "bias": bias}}, x),
        *(variables["params"][k].shape for k in ("scale", "bias")),
        (1, 4, 4, 6),
    )
    assert found
    assert {axes for axes, _, _ in found} == {(4, 4, 3)}


def test_a_loop_and_branches():
    def loop(h):
        return lax.scan(lambda c, row: (c + row.mean(), row.sum() / N), 0.0, h)

    assert means(loop, (B, N)) == [((N,), 0, False)] * 2

    def settles(h):  # the carry is a sum at first only
        return lax.scan(lambda c, _: (c / N + 1.0, None), h.sum(1), None, length=2)[0]

    assert means(settles, (B, N)) == []

    def branch(h):
        return lax.cond(h[0, 0] > 0, lambda s: s / N, lambda s: s * 2.0, h.sum(1))

    assert means(branch, (B, N)) == [((N,), 0, False)]


def test_the_scale_of_a_divisor():
    axes = (Atom(H), Atom(N))
    half = {id(axes[0]): H, id(axes[1]): 4}

    def size(axis):
        return half[id(axis)]

    def scale(lost, inverse, size=size):
        return Divisor(operand=1, axes=axes, lost=lost, inverse=inverse).scale(size)

    assert scale(0, False) == pytest.approx(20 / 35)
    assert scale(1, False) == pytest.approx(19 / 34)
    assert scale(0, True) == pytest.approx(35 / 20)
    assert scale(1, False, lambda axis: 1) == pytest.approx(1 / 34)  # never zero
