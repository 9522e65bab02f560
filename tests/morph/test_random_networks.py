"""Random small networks x random kept channels: the compact function equals the masked one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from corpus.costs import COSTS
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from jax import lax

import morph
import regularizers as reg

IMAGE = (2, 4, 4, 3)  # batch, height, width, channels
CLASSES = 3


class Variables:
    """Hands out variables by name in the order of use; without values it draws them."""

    def __init__(self, values=None):
        self.values = values or {}
        self.rng = None if values else np.random.default_rng(0)
        self.used = 0

    def __call__(self, leaf, *shape):
        name = f"{leaf}_{self.used}"
        self.used += 1
        if self.rng is not None:
            value = self.rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
            value = abs(value) + 0.5 if leaf == "var" else value
            self.values[name] = np.asarray(value, np.float32)  # not a tracer, where it is traced
        return self.values[name]

    def vector(self, kind, x):
        """A variable over the channels of `x`, with its rank."""
        return self(kind, x.shape[-1]).reshape((1,) * (x.ndim - 1) + (-1,))


def conv(var, x, width, window=3, groups=1):
    kernel = var("kernel", window, window, x.shape[-1] // groups, width)
    out = lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )  # fmt: skip
    return out + var.vector("bias", out)


def dense(var, x, width):
    out = x @ var("kernel", x.shape[-1], width)
    return out + var.vector("bias", out)


def relu(x):
    return jnp.maximum(x, 0.0)


# Each operation is op(var, x, width, choice) -> x [N, H, W, C]; `choice` is a small integer.


def plain(var, x, width, choice):
    return jax.nn.gelu(conv(var, x, width, 1 + 2 * (choice % 2)))


def residual(var, x, width, choice):
    y = relu(conv(var, x, width))
    return relu(x + conv(var, y, x.shape[-1], 1))


def towers(var, x, width, choice):
    parts = [relu(conv(var, x, width, 1)), x, jnp.tanh(conv(var, x, 1 + choice))]
    return jnp.concatenate(parts[choice % 3 :] + parts[: choice % 3], -1)


def split(var, x, width, choice):
    cut = 1 + choice % (x.shape[-1] - 1) if x.shape[-1] > 1 else 0
    first, second = x[..., :cut], x[..., cut:]
    return jnp.concatenate([relu(second), first], -1)


def gated(var, x, width, choice):
    gate, value = jnp.split(conv(var, x, 2 * width), 2, -1)
    return jax.nn.sigmoid(gate) * value


def sliced(var, x, width, choice):
    return x[..., choice % x.shape[-1] :]


def padded(var, x, width, choice):
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (choice % 3, 2)))


def depthwise(var, x, width, choice):
    channels = x.shape[-1]
    return relu(conv(var, x, channels * (1 + choice % 2), groups=channels))


def grouped(var, x, width, choice):
    groups = 2 + choice % 2
    x = relu(conv(var, x, groups * width))
    return relu(conv(var, x, groups * (1 + choice), groups=groups))


def batch_norm(var, x, width, choice):
    scale = var.vector("scale", x) * lax.rsqrt(var.vector("var", x) + 1e-3)
    return (x - var.vector("mean", x)) * scale + var.vector("bias", x)


def normalized(x, axes):
    mean = x.mean(axes, keepdims=True)
    variance = (x * x).mean(axes, keepdims=True) - mean * mean
    return (x - mean) * lax.rsqrt(variance + 1e-1)


def layer_norm(var, x, width, choice):
    return normalized(x, -1) * var.vector("scale", x) + var.vector("bias", x)


def group_norm(var, x, width, choice):
    groups = 2 + choice % 2
    x = conv(var, x, groups * width)
    y = normalized(x.reshape(*x.shape[:-1], groups, -1), (1, 2, 4)).reshape(x.shape)
    return y * var.vector("scale", x) + var.vector("bias", x)


def excited(var, x, width, choice):
    s = jax.nn.sigmoid(dense(var, relu(dense(var, x.mean((1, 2)), width)), x.shape[-1]))
    return x * s[:, None, None, :]


def pooled(var, x, width, choice):
    low, add = (-jnp.inf, lax.max) if choice % 2 else (0.0, lax.add)
    return lax.reduce_window(x, low, add, (1, 2, 2, 1), (1, 1, 1, 1), "SAME")


def attended(var, x, width, choice):
    heads = 2 + choice % 2
    tokens = x.reshape(x.shape[0], -1, x.shape[-1])  # [N, T, C]
    q, k, v = (
        dense(var, tokens, heads * width).reshape(*tokens.shape[:2], heads, width) for _ in range(3)
    )
    weights = jax.nn.softmax(jnp.einsum("nqhd,nkhd->nhqk", q, k), -1)
    out = jnp.einsum("nhqk,nkhd->nqhd", weights, v).reshape(*tokens.shape[:2], -1)
    return dense(var, out, 2 * width).reshape(*x.shape[:3], -1)


OPERATIONS = [
    plain, residual, towers, split, gated, sliced, padded, depthwise, grouped, batch_norm,
    layer_norm, group_norm, excited, pooled, attended,
]  # fmt: skip


def head(var, x, choice):
    flat = x.reshape(x.shape[0], -1)
    return dense(var, relu(dense(var, flat, 7)) if choice % 2 else x.mean((1, 2)), CLASSES)


programs = st.tuples(
    st.lists(
        st.tuples(st.sampled_from(OPERATIONS), st.integers(2, 6), st.integers(0, 5)),
        min_size=1,
        max_size=5,
    ),
    st.integers(0, 1),
)


def network(program):
    """The function of a program, and its variables."""
    operations, last = program

    def run(var, x):
        x = relu(conv(var, x, 5))
        for operation, width, choice in operations:
            x = operation(var, x, width, choice)
        return head(var, x, last)

    drawn = Variables()
    jax.eval_shape(lambda x: run(drawn, x), jax.ShapeDtypeStruct(IMAGE, jnp.float32))
    return lambda values, x: run(Variables(values), x), drawn.values


# Shrinking a failing network takes minutes; it is small as it is.
@settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=30,
    phases=[Phase.generate],
)
@given(programs, st.integers(0, 2**16))
def test_compact_equals_masked(program, seed):
    fn, variables = network(program)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=IMAGE).astype(np.float32)
    graph = reg.trace_channels(fn, variables, x)
    assert graph.unknown == {}
    alive = {name: rng.random(width) < 0.6 for name, width in graph.widths.items()}
    for mask in alive.values():
        mask[rng.integers(mask.size)] = True
    arch = morph.shrink(graph, alive)
    small_fn = morph.compact(fn, arch)

    @jax.jit  # also what masks and slices: piece by piece it compiles for every shape
    def both(variables, x):
        masked = graph.mask(variables, alive)
        return fn(masked, x), small_fn(arch.take(masked), x)

    expected, found = both(variables, x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * float(np.abs(expected).max()))


@settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=20,
    phases=[Phase.generate],
)
@given(programs, st.integers(0, 2**16))
def test_costs_of_an_architecture_equal_those_of_the_compacted_function(program, seed):
    """All costs: at an architecture's widths, and of the small function traced anew."""
    fn, variables = network(program)
    rng = np.random.default_rng(seed)
    x = jax.ShapeDtypeStruct(IMAGE, jnp.float32)
    graph = reg.trace_channels(fn, variables, x)
    alive = {name: rng.random(width) < 0.6 for name, width in graph.widths.items()}
    for mask in alive.values():
        mask[rng.integers(mask.size)] = True
    arch = morph.shrink(graph, alive)
    small = reg.trace_channels(morph.compact(fn, arch), arch.take(variables), x)
    for kind, build in COSTS.items():
        assert build(graph)(arch.widths) == pytest.approx(build(small)(), rel=1e-9), kind


def test_every_operation_alone():
    """Each operation keeps at least the stem's width free, or one of its own."""
    for operation in OPERATIONS:
        for choice in (0, 1):
            fn, variables = network(([(operation, 4, choice)], choice))
            graph = reg.trace_channels(fn, variables, jax.ShapeDtypeStruct(IMAGE, jnp.float32))
            assert graph.groups, operation.__name__
            assert all(group.exact for group in graph.groups.values()), operation.__name__
